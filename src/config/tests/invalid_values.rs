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

/// The ranges of keys and values in a text. Tables that are not inline, and their names, are left out. So are arrays of
/// such tables, but not their names.
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

/// `full.toml` without `allow_file` and `deny_file`: these files do not exist.
fn full() -> String {
    let mut full = super::full_lines(|_| true);
    full.retain(|line| !line.starts_with("allow_file") && !line.starts_with("deny_file"));
    full.join("\n")
}

#[test]
fn a_value_that_is_not_valid_causes_one_error_with_a_hint() {
    let full = full();
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

/// The text that a hint says to write. `None`: it says something else, or the text has a placeholder such as `PORT`.
fn suggested(hint: &str) -> Option<&str> {
    let (_, rest) = hint.split_once("write \"")?;
    let (text, _) = rest.split_once('"')?;
    let has_placeholder = text
        .as_bytes()
        .windows(4)
        .any(|part| part.iter().all(u8::is_ascii_uppercase));
    (!has_placeholder && text != "host:port").then_some(text)
}

/// The value may contradict other settings, but is valid by itself.
#[test]
fn a_text_that_a_hint_suggests_instead_of_a_number_is_valid() {
    let full = full();
    let (mut wrong, mut tried) = (String::new(), 0);
    for text in TEXTS.into_iter().chain([full.as_str()]) {
        for place in Places::of(text).values {
            let with = |value: &str| format!("{}{value}{}", &text[..place.start], &text[place.end..]);
            for number in ["-1", "0", "9999999999"] {
                let Err(report) = read("a.toml", &with(number)) else {
                    continue;
                };
                let first = &report.to_json()[0];
                let Some(suggested) = first["hint"].as_str().and_then(suggested) else {
                    continue;
                };
                tried += 1;
                let Err(again) = read("a.toml", &with(&format!("\"{suggested}\""))) else {
                    continue;
                };
                let is_about_the_value = |message: &str| {
                    ["expected ", "range", "is not a", "invalid", "no port"]
                        .iter()
                        .any(|part| message.contains(part))
                };
                let same_place = |problem: &serde_json::Value| problem["line"] == first["line"];
                if again
                    .to_json()
                    .iter()
                    .any(|problem| same_place(problem) && problem["message"].as_str().is_some_and(is_about_the_value))
                {
                    wrong += &format!("{} = {number}:\n{report}\n{again}\n", &text[place.clone()]);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(tried > 50, "{tried}");
}

#[test]
fn a_value_of_a_wrong_type_or_out_of_range_gets_a_hint_with_a_valid_one() {
    for (wrong, hint) in [
        ("[runtime]\nhello_memory = 0", "write \"1MiB\" to \"1024GiB\""),
        ("[runtime]\nhello_memory = -1", "write \"1MiB\" to \"1024GiB\""),
        ("[runtime]\nhello_memory = \"5\"", "write \"1MiB\" to \"1024GiB\""),
        ("[defaults]\nhello_max = 0", "write \"512B\" to \"1MiB\""),
        ("[defaults]\nconnect_timeout = 0", "write \"5s\""),
        ("[defaults]\nconnect_timeout = 99999999", "write \"99999999ms\""),
        (
            "[defaults]\nidle_timeout = \"99999999999999\"",
            "write \"5s\", or \"off\"",
        ),
        (
            "[guards.g]\nrate = 0",
            "write a count of 1 to 1000000 and a period, as in \"20/s\", \"300/m\" or \"1000/h\"",
        ),
        ("[pools.p]\nretries = \"2\"", "write 2 without quotes"),
        ("[pools.p.health]\nport = \"65535\"", "write 65535 without quotes"),
        ("[pools.p.health]\nport = \"70000\"", "write a number from 1 to 65535"),
        ("[pools.p.health]\nport = \"0\"", "write a number from 1 to 65535"),
        ("[pools.p.health]\nport = \"007\"", "write a number from 1 to 65535"),
        ("[pools.p.health]\nport = \"+7\"", "write a number from 1 to 65535"),
        ("[listeners.a]\nbind = -1", "write \"0.0.0.0:443\""),
        ("[listeners.a]\nbind = 80", "write [\"0.0.0.0:80\", \"[::]:80\"]"),
        (
            "[pools.p.health]\ncheck = \"exec\"\ncommand = -1",
            "write command = [\"/usr/lib/nagios/plugins/check_ssh\", \"-4\"]",
        ),
        (
            "[pools.p.health]\ncheck = \"exec\"\ncommand = [\"/x\", 5]",
            "write \"5\"",
        ),
    ] {
        let report = read("a.toml", wrong).unwrap_err();
        let problems = report.to_json();
        assert!(
            problems.iter().any(|problem| problem["hint"] == hint),
            "{wrong}: {report}"
        );
    }
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
