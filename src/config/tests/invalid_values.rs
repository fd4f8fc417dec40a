//! A value that is not valid, or a key that is misspelt, causes one error: no other setting is called missing, unused,
//! unknown or contradictory because of it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::read;
use crate::config::keys;

/// Configurations with settings on which other settings depend. `full.toml` has the rest of the settings.
const TEXTS: [&str; 4] = [
    r#"
[listeners.a]
bind = "127.0.0.1:1"
pool = "p"
protocol = "postgres"
tls_required = true
cancel_unplaced = "fanout"
tls = { certificates = [{ cert = "a", key = "b" }], client_auth = { ca_file = "c", mode = "require", names = "*.a" } }
routes = [{ database = "x", user = "y", pool = "q", tls = "terminate" }]
[listeners.r]
bind = "127.0.0.1:2"
protocol = "postgres"
tls_required = false
tls = { certificates = [{ cert = "a", key = "b" }], client_auth = { ca_file = "c", mode = "request" } }
pool = "q"
[pools.p]
servers = [{ address = "10.0.0.1:1", name = "p1", weight = 1 }]
role = "replica"
max_lag = "5s"
role_trust = "20s"
fallback = "primary"
single = true
[pools.p.health]
check = "postgres"
user = "u"
password_file = "/x"
database = "d"
eject_for = "500ms"
eject_max_for = "800ms"
[pools.q]
servers = [{ address = "10.0.0.1:1", weight = 1 }]
balance = "round-robin"
max_session_age = "20s"
rebalance = "10s"
idle_for = "10s"
fallback = "p"
max_sessions = 9
queue = { max = 5, timeout = "9s" }
health = { check = "redis", user = "u", password_file = "/x", sentinels = ["10.0.0.5:1", "10.0.0.5:2"], master = "m", sentinel_user = "u", sentinel_password_file = "/y" }
"#,
    r#"
listeners.a = { bind = "127.0.0.1:1", redirect = { to = "b", port = 9 } }
listeners.b = { bind = ["127.0.0.1:2"], pool = "s", accept_proxy = { from = "10.0.0.0/8" } }
listeners.c = { bind = "127.0.0.1:3", pool = "t", guards = ["g"] }
guards.g = { rate_per_source = "5/s", burst = 5 }
guards.h = { allow = "10.0.0.0/8" }
[pools.s.scale]
min = 3
max = 5
sessions_per_server = 5
command = ["/bin/app"]
ports = "20000-20009"
user = "root"
env = { a = "b" }
[pools.t]
discover = { etcd = "/x" }
bind_source = "client"
resolve = "ipv4"
health = { check = "http", method = "HEAD", tls = true, sni = "a.example", ca_file = "/x", headers = { a = "b" } }
[providers]
etcd = { endpoints = ["https://10.0.0.2:2379"], user = "x", password_file = "/y", cert_file = "/c", key_file = "/k" }
"#,
    r#"
runtime.state_dir = "/x"
acme.le = { directory = "https://a.example/dir" }
acme.other = { directory = "https://a.example/dir", state_dir = "/y" }
[listeners.a]
bind = "127.0.0.1:1"
pool = "p"
tls = { certificates = [{ acme = "le", names = ["a.example"] }, { directory = "/x" }, { acme = "other", names = ["b.example"] }] }
routes = [{ sni = "a.example", tls = "terminate", pool = "p" }, { sni = "b.example", refuse = true }]
[pools.p]
tls = { cert = "/x", key = "/y" }
scale = { min = 0, max = 5, sessions_per_server = 5, hook = { start = ["/bin/x"], stop = ["/bin/y"] } }
"#,
    r#"
listeners.a = { bind = "127.0.0.1:1", pool = "p" }
[pools.p]
servers = ["unix:/run/x"]
fallback = "b"
health = { check = "agent", port = 99, address = "10.0.0.1" }
[pools.b]
discover = { dns = "a.example:55", resolver = "10.0.0.2:53" }
health = { check = "http", method = "GET", wrong_role = 503, wrong_role_body = "x" }
"#,
];

/// The ranges of keys and values in a text. Tables that begin with a header, and the names in headers, are left out.
#[derive(Default)]
struct Places {
    values: Vec<Range<usize>>,
    keys: Vec<Range<usize>>,
}

impl Places {
    fn of(text: &str) -> Self {
        let root = DeTable::parse(text).unwrap();
        let mut places = Self::default();
        places.add_table(text, root.get_ref());
        places
    }

    fn add_table(&mut self, text: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let is_inline = !matches!(value.get_ref(), DeValue::Table(_)) || text[value.span()].starts_with('{');
            if is_inline {
                self.keys.push(key.span());
            }
            self.add(text, value.get_ref(), value.span());
        }
    }

    fn add(&mut self, text: &str, value: &DeValue<'_>, span: Range<usize>) {
        let is_headed_array = text[span.clone()].starts_with("[[");
        let is_headed_table = value.is_table() && !text[span.clone()].starts_with('{');
        match value {
            DeValue::Table(table) => self.add_table(text, table),
            DeValue::Array(items) => items
                .iter()
                .for_each(|item| self.add(text, item.get_ref(), item.span())),
            _ => {}
        }
        if !(is_headed_array || is_headed_table) {
            self.values.push(span);
        }
    }
}

#[test]
fn a_value_that_is_not_valid_causes_one_error_with_a_hint() {
    // The files that `allow_file` and `deny_file` name do not exist.
    let mut full = super::full_lines(|_| true);
    full.retain(|line| !line.starts_with("allow_file") && !line.starts_with("deny_file"));
    let full = full.join("\n");
    let mut wrong = String::new();
    for text in TEXTS.into_iter().chain([full.as_str()]) {
        read("a.toml", text).unwrap_or_else(|report| panic!("{report}"));
        for place in Places::of(text).values {
            // A date: no setting accepts one.
            let mutated = format!("{}1979-05-27{}", &text[..place.start], &text[place.end..]);
            match read("a.toml", &mutated) {
                Ok(_) => wrong += &format!("{} may be a date\n", &text[place]),
                Err(report) if report.error_count() > 1 || report.to_json()[0]["hint"].is_null() => {
                    wrong += &format!("{}:\n{report}\n", &text[place]);
                }
                Err(_) => {}
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_misspelt_key_causes_at_most_one_error() {
    let mut wrong = String::new();
    for text in TEXTS {
        // Keys of one character are names that the operator chose.
        for place in Places::of(text).keys.into_iter().filter(|place| place.len() > 1) {
            let mutated = format!("{}x{}", &text[..place.end], &text[place.end..]);
            if let Err(report) = read("a.toml", &mutated)
                && report.error_count() > 1
            {
                wrong += &format!("{}:\n{report}\n", &text[place]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_example_of_a_section_has_only_keys_of_the_section() {
    for section in keys::ALL.iter().filter(|section| !std::ptr::eq(**section, &keys::FILE)) {
        let example = section.example.trim_end_matches(" or \"off\"");
        let text = format!("example = {example}");
        let root = DeTable::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", section.title));
        let DeValue::Table(table) = root.get_ref()["example"].get_ref() else {
            panic!("{}: {example}", section.title)
        };
        for key in table.keys() {
            assert!(section.keys.contains(&&**key.get_ref()), "{}: {example}", section.title);
        }
    }
}
