use std::time::Duration;

use super::*;
use crate::account::access_log::AccessTarget;
use crate::addr::ServerLocation;
use crate::check::postgres::{PostgresCheck, PostgresLogin};
use crate::check::tls::TlsCheck;
use crate::check::{Check, PasswordLogin};
use crate::plan::{AdminSocket, RemoteText};
use crate::pool::{MemberConfig, Policy};
use crate::proxy_protocol::Version;

mod invalid_values;

const POOL: &str = "[pools.p]\nservers = [\"10.0.0.1:1\"]\n";

fn plan(text: &str) -> Plan {
    let loaded = read("test.toml", text).unwrap_or_else(|report| panic!("{report}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.plan
}

/// The number of warnings about a listener with these routes.
fn warnings(routes: &[&str]) -> usize {
    let routes = routes.join("\npool = \"p\"\n[[listeners.a.routes]]\n");
    let text = format!("[listeners.a]\nbind = \"[::1]:0\"\n[[listeners.a.routes]]\n{routes}\npool = \"p\"\n{POOL}");
    let loaded = read("test.toml", &text).unwrap_or_else(|report| panic!("{report}"));
    loaded.warnings.to_json().len()
}

#[test]
fn the_admin_socket_is_found_even_in_invalid_toml() {
    let directory = tempfile::tempdir().unwrap();
    let socket_of = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        admin_socket(&path).map_err(|error| error.kind())
    };
    let x_sock = Ok(AdminSocket::Path("/x.sock".into()));
    assert_eq!(
        socket_of("a.toml", "[admin]\nsocket = \"/x.sock\"\nzzz = 1\n[listeners"),
        x_sock
    );
    assert_eq!(socket_of("a.toml", "[admin]\nsocket = \"off\""), Ok(AdminSocket::Off));
    assert_eq!(socket_of("a.toml", ""), Ok(AdminSocket::Default));
    assert_eq!(socket_of("a.json", r#"{ "admin": { "socket": "/x.sock" } }"#), x_sock);
    assert_eq!(socket_of("a.json", r#"{ "admin": { "#), Err(io::ErrorKind::InvalidData));
    let missing = admin_socket(&directory.path().join("none")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn full_toml_is_converted() {
    let loaded = read("full.toml", include_str!("../../conf/full.toml"));
    let plan = loaded.ok().unwrap().plan;
    let listener = &plan.listeners[0];
    assert_eq!(listener.bind.len(), 3);
    assert_eq!(listener.max_connections, Some(50_000));
    assert!(listener.routes.needs_hello());
    let shop = plan.pool("shop").unwrap();
    assert_eq!(shop.entries.len(), 4);
    let fixed: Vec<_> = shop.entries.iter().filter_map(|entry| entry.fixed()).collect();
    let labels: Vec<&str> = fixed.iter().map(|server| &*server.label).collect();
    assert_eq!(
        labels,
        ["10.0.1.1:443", "big", "10.0.2.1:443"],
        "a host name has no server before it is resolved"
    );
    assert!(
        matches!(&shop.entries[1].location, ServerLocation::Name { host, port: 443 } if &**host == "shop.internal")
    );
}

#[test]
fn sections_inherit_missing_settings() {
    let plan = plan(&format!(
        r#"
        [defaults]
        idle_timeout = "10m"
        backlog = 7
        retries = 0
        keepalive = {{ idle = "30s", probes = 3 }}
        [listeners.a]
        bind = "[::1]:0"
        pool = "p"
        [listeners.b]
        bind = "[::1]:0"
        pool = "p"
        idle_timeout = "off"
        keepalive = "off"
        {POOL}
        connect_timeout = "250ms"
        keepalive = {{ interval = "1s" }}
        user_timeout = "9s"
        "#
    ));
    let [a, b] = &plan.listeners[..] else {
        panic!("two listeners")
    };
    assert_eq!(a.relay.idle_timeout, Some(Duration::from_secs(600)));
    assert_eq!((b.relay.idle_timeout, b.backlog), (None, 7));
    let keepalive = a.socket.keepalive.unwrap();
    let idle_interval_probes = |keepalive: crate::socket::Keepalive| {
        (keepalive.idle.as_secs(), keepalive.interval.as_secs(), keepalive.probes)
    };
    assert_eq!(idle_interval_probes(keepalive), (30, 10, 3)); // 10 is the built-in default
    assert_eq!(b.socket.keepalive, None);
    let dial = &plan.pools.first().unwrap().dial;
    assert_eq!((dial.connect.timeout, dial.retries), (Duration::from_millis(250), 0));
    assert_eq!(idle_interval_probes(dial.connect.socket.keepalive.unwrap()), (30, 1, 3));
    assert_eq!(dial.connect.socket.user_timeout, Some(Duration::from_secs(9)));
    assert_eq!(a.socket.user_timeout, None);
}

#[test]
fn omitted_keys_of_servers_and_checks_have_the_documented_defaults() {
    let pool = |health: &str| {
        let listener = "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"";
        Arc::clone(
            plan(&format!("{listener}\n{POOL}health = {{ {health} }}"))
                .pool("p")
                .unwrap(),
        )
    };
    assert_eq!(pool("").entries[0].member_config.priority, 0);
    let login = PostgresLogin {
        account: PasswordLogin {
            user: "u".into(),
            password_file: None,
        },
        database: "u".into(),
    };
    for (user, login) in [("", None), (", user = \"u\"", Some(login))] {
        let check: Arc<dyn Check> = Arc::new(PostgresCheck { login });
        assert_eq!(pool(&format!("check = \"postgres\"{user}")).health.check, Some(check));
    }
    let tls: Arc<dyn Check> = Arc::new(TlsCheck {
        sni: None,
        alpn: Vec::new(),
        verify: None,
        ca_file: None,
    });
    assert_eq!(pool("check = \"tls\"").health.check, Some(tls));
}

#[test]
fn json_has_the_keys_of_toml() {
    let text = r#"{
        "log": { "access": "/var/log/acequia.log" },
        "listeners": { "a": { "bind": ["[::1]:0", "[::1]:0"], "pool": "p" } },
        "pools": { "p": {
            "servers": [{ "address": "a.example:1", "weight": 256 }],
            "balance": "source-hash", "proxy_protocol": "v2", "health": { "check": "off" }
        } }
    }"#;
    let loaded = read("test.JSON", text).unwrap(); // the case of the extension does not matter
    let pool = loaded.plan.pool("p").unwrap();
    assert_eq!(
        (pool.policy(), pool.dial.connect.proxy_protocol),
        (Policy::SourceHash, Some(Version::V2))
    );
    assert_eq!((pool.is_checked(), pool.entries[0].member_config.weight), (false, 256));
    assert_eq!(
        loaded.plan.log.access,
        AccessTarget::File("/var/log/acequia.log".into())
    );
    assert!(read("test.toml", text).is_err());
}

#[test]
fn reachable_routes_cause_no_warning() {
    for routes in [
        &["sni = \"*.example\"", "sni = \"a.example\""][..], // the exact name wins
        &["sni = \"a.example\"", "sni = \"*.example\""],
        &["sni = \"*\"", "from = \"10.0.0.0/8\""], // the second matches clients that send no SNI
        &["sni = \"a.example\"", "sni = \"a.example\"\nalpn = \"h2\""], // more kinds of conditions win
        &["sni = \"a.example\"\nalpn = \"h2\"", "sni = \"a.example\""],
        &["alpn = \"h2\"", "alpn = [\"h2\", \"h3\"]"],
        &["from = \"10.0.0.0/9\"", "from = \"10.0.0.0/8\""],
        &["alpn = \"h2\"", "from = \"10.0.0.0/8\""],
        &["from = \"0.0.0.0/0\"", "from = \"::/0\""],
        &["sni = \"a.example\"", "sni = \"a.example.com\""],
    ] {
        assert_eq!(warnings(routes), 0, "{routes:?}");
    }
}

#[test]
fn unreachable_routes_cause_a_warning() {
    for routes in [
        &["sni = \"a.example\"", "sni = \"A.example.\""][..],
        &["sni = [\"a.example\", \"b.example\"]", "sni = \"b.example\""],
        &[
            "sni = \"a.example\"",
            "sni = \"b.example\"",
            "sni = [\"b.example\", \"a.example\"]",
        ],
        &["sni = \"*\"", "sni = \"*\""],
        &["from = \"10.0.0.0/8\"", "from = \"10.1.2.3\""],
        &["alpn = [\"h2\", \"h3\"]", "alpn = \"h3\""],
    ] {
        assert_eq!(warnings(routes), 1, "{routes:?}");
    }
}

#[test]
fn bind_source_and_queue_have_an_effect_in_a_pool_with_clones() {
    let listener = "[listeners.a]\nbind = \"[::1]:0\"\npool = \"p\"\n";
    let pool = "[pools.p]\nservers = [\"unix:/s\"]\nbind_source = \"client\"\nqueue = { max = 10 }\n";
    plan(&format!(
        "{listener}{pool}scale = {{ max = 2, sessions_per_server = 9, command = [\"/bin/app\"] }}"
    ));
}

#[test]
fn the_first_existing_default_path_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["a.toml", "b.toml"].map(|name| directory.path().join(name));
    let paths = [first.as_path(), second.as_path()];
    let error = first_existing(&paths).unwrap_err().to_string();
    assert!(error.contains("a.toml") && error.contains("b.toml"), "{error}");
    std::fs::write(&second, "").unwrap();
    assert_eq!(first_existing(&paths).unwrap(), second);
    std::fs::write(&first, "").unwrap();
    assert_eq!(first_existing(&paths).unwrap(), first);
    assert_eq!(find(Some(Path::new("named"))).unwrap(), Path::new("named"));
    // The system cannot tell whether a path exists if its name is too long, or if a permission is missing.
    let unknown = directory.path().join("a".repeat(300));
    assert_eq!(first_existing(&[&unknown, &second]).unwrap(), second);
    assert_eq!(
        first_existing(&[&directory.path().join("none"), &unknown]).unwrap(),
        unknown
    );
}

#[test]
fn quoted_text_contains_no_unsafe_characters() {
    let server =
        |server| format!("[listeners.a]\nbind = \"[::1]:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{server}\"]");
    for (name, text) in [
        ("a.toml", server("b\t1")),
        ("a.toml", server("b\\u001b[2J")),
        ("a.toml", server("\\u009b2J:1")),
        ("a.toml", server("\u{9b}2J:1 \u{7f}")),
        ("a.toml", String::from("[a]\nb\u{9b}2J = 1")),
        ("a.toml", String::from("\u{85}")),
        ("a.toml", server("\u{202e}1:b \u{2066}\u{2028}\u{feff}")),
        ("a.toml", server("b\"] # \u{202e}")),
        ("a.json", String::from(r#"{"a\u001b": {"b\u009b": 1}}"#)),
        ("\u{1b}[2J.toml", String::from("[a]")),
    ] {
        let report = read(name, &text).err().unwrap().to_string();
        let is_unsafe = |c: char| crate::text::is_unsafe(c) && c != '\n';
        assert!(!report.chars().any(is_unsafe), "{report:?}");
    }
}

#[test]
fn the_carets_cover_escaped_text() {
    let report = read("a.toml", "\t[log]\nx\u{9b} = 1").err().unwrap().to_string();
    assert!(report.contains("x\\u{9b} = 1\n  |  ^^^^^^ "), "{report}");
}

#[test]
fn a_byte_order_mark_is_accepted() {
    let toml = "\u{feff}[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"10.0.0.1:1\"]";
    let json = "\u{feff}{\"listeners\": {\"l\": {\"bind\": \"[::1]:1\", \"pool\": \"p\"}}, \
                \"pools\": {\"p\": {\"servers\": [\"10.0.0.1:1\"]}}}";
    for (name, text) in [("a.toml", toml), ("a.json", json)] {
        let loaded = read(name, text).unwrap_or_else(|report| panic!("{name}: {report}"));
        assert_eq!(loaded.plan.listeners.len(), 1);
        assert_eq!(loaded.text(), text, "the text as read");
    }
    let report = read("a.json", "\u{feff}{\"a\": !}").unwrap_err().to_string();
    assert!(report.contains("^") && report.contains("a.json:1:"), "{report}");
}

/// Loads the file of a machine, with these lines in `[remote]`, and texts from a store, each given as key and text.
fn remote(lines: &str, texts: &[(&str, &str)]) -> Result<Loaded, Report> {
    let texts = texts
        .iter()
        .map(|(key, text)| RemoteText::new(key.as_bytes(), text.as_bytes(), 1));
    with_texts(lines, texts.collect())
}

fn with_texts(lines: &str, texts: Vec<RemoteText>) -> Result<Loaded, Report> {
    let file = format!(
        "[runtime]\nstate_dir = \"/var/lib/acequia\"\n[providers.etcd]\nendpoints = [\"http://10.0.0.2:2379\"]\n\
         [remote]\nfrom = \"etcd:/edge\"\ninstance = \"one\"\n{lines}\n"
    );
    let file = read("a.toml", &file).unwrap_or_else(|report| panic!("{report}"));
    assert!(file.plan.listeners.is_empty() && file.warnings.is_empty());
    file.with_texts(&RemoteTexts {
        from: String::from("etcd:/edge"),
        texts,
    })
}

/// The lines of those sections of `full.toml` that may come from a store.
fn storable_lines() -> Vec<&'static str> {
    let of_process = ["[runtime]", "[admin]", "[log]", "[providers"];
    full_lines(|header| !of_process.iter().any(|section| header.starts_with(section)))
}

/// The lines of the sections of `full.toml` whose headers are wanted. Keys that `full.toml` comments out are
/// uncommented.
fn full_lines(is_wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut is_within = true;
    let lines = include_str!("../../conf/full.toml").lines().filter(|line| {
        if line.starts_with('[') {
            is_within = is_wanted(line);
        }
        is_within
    });
    let is_key = |rest: &&str| rest.starts_with(|first: char| first.is_ascii_lowercase());
    lines
        .map(|line| line.strip_prefix('#').filter(is_key).unwrap_or(line))
        .collect()
}

/// Every key of `full.toml` that names a file, or that starts processes or containers, must be refused.
#[test]
fn a_stored_text_may_name_no_file_and_no_command_under_any_key() {
    let lines = storable_lines();
    let report = remote("", &[("/edge", &lines.join("\n"))]).unwrap_err();
    let problems = report.to_json();
    let refused: Vec<u64> = problems.iter().filter_map(|problem| problem["line"].as_u64()).collect();
    for problem in &problems {
        let message = problem["message"].as_str().unwrap();
        let refusals = [
            "the store may not name this file",
            "commands are not taken",
            "containers are not taken",
            "the path is not absolute",
        ];
        assert!(refusals.iter().any(|refusal| message.starts_with(refusal)), "{problem}");
        assert_eq!(problem["file"], "etcd:/edge");
    }
    let must_be_refused = |line: &str| {
        let code = line.split(" # ").next().unwrap();
        let marks = [
            "\"/etc/",
            "\"/var/",
            "\"/usr/",
            "\"/run/",
            "unix:/",
            ".txt\"",
            "scale.docker]",
        ];
        marks.iter().any(|mark| code.contains(mark)) && !line.starts_with('#')
    };
    let mut found = 0;
    for (number, line) in (1..).zip(&lines).filter(|(_, line)| must_be_refused(line)) {
        assert!(refused.contains(&number), "line {number}: {line}");
        found += 1;
    }
    assert!(found > 20, "{found}");
    // With everything allowed, only `allow_file` and `deny_file` fail: their paths are relative.
    let report = remote("allow = [\"exec\", \"files:/\"]", &[("/edge", &lines.join("\n"))]).unwrap_err();
    assert_eq!(report.error_count(), 2, "{report}");
}

#[test]
fn the_files_of_a_stored_acme_account_stay_below_the_local_state_dir() {
    for name in ["../../etc", "/etc", ".."] {
        let text = format!("[acme.\"{name}\"]\ndirectory = \"https://acme.example/directory\"");
        let report = remote("", &[("/edge", &text)]).unwrap_err().to_string();
        assert!(report.contains("invalid name of an account"), "{report}");
    }
}

#[test]
fn problems_of_stored_texts_name_the_key_and_the_place_in_its_text() {
    let listener = "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n";
    let report = remote(
        "",
        &[("/edge/a", listener), ("/edge/b", &(String::from(POOL) + listener))],
    )
    .unwrap_err();
    let report = report.to_string();
    assert!(
        report.contains("`[listeners.l]` is in two keys")
            && report.contains("etcd:/edge/b:3:12")
            && report.contains("first on line 1 of etcd:/edge/a"),
        "{report}"
    );
    let json = r#"{"pools": {"p": {"servers": ["10.0.0.1"]}}}"#;
    let report = remote("", &[("/edge/a", listener), ("/edge/b.json", json)]).unwrap_err();
    let problem = &report.to_json()[0];
    assert_eq!(
        (&problem["file"], &problem["path"]),
        (&"etcd:/edge/b.json".into(), &"pools.p.servers[0]".into())
    );
    let report = remote("", &[("/edge/a", listener), ("/edge/b", "[pools")])
        .unwrap_err()
        .to_string();
    assert!(report.contains("etcd:/edge/b:1:7"), "{report}");
}

#[test]
fn a_stored_text_must_be_utf_8_and_may_have_replacement_characters() {
    let text = format!("# \u{fffd}\n[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n{POOL}");
    remote("# \u{fffd}", &[("/edge/a", &text)]).unwrap_or_else(|report| panic!("{report}"));
    let invalid = [text.as_bytes(), b"# \xff"].concat();
    let texts = vec![RemoteText::new(b"/edge/a", &invalid, 1)];
    let report = with_texts("", texts).unwrap_err().to_string();
    assert!(
        report.contains("not UTF-8") && report.contains("etcd:/edge/a:7:3"),
        "{report}"
    );
}

#[test]
fn an_unknown_section_in_two_texts_of_a_store_is_reported_as_unknown() {
    let report = remote("", &[("/edge/a", "[pool]"), ("/edge/b", "[pool]")])
        .unwrap_err()
        .to_string();
    assert!(
        report.matches("unknown key `pool`").count() == 2 && !report.contains("two keys"),
        "{report}"
    );
}

#[test]
fn problems_of_sections_in_two_texts_of_a_store_name_the_right_text() {
    let duplicate = "[pools.p]\nservers = [\"10.0.0.2:1\"]\n";
    for (first, second, message, place) in [
        (
            POOL,
            duplicate,
            "error: `[pools.p]` is in two keys of the store",
            "etcd:/edge/b:1:8",
        ),
        (
            POOL,
            "\n\npools = 7",
            "error: expected a table, found an integer",
            "etcd:/edge/b:3:9",
        ),
        (
            "pools = 7",
            POOL,
            "error: expected a table, found an integer",
            "etcd:/edge/a:1:9",
        ),
    ] {
        let report = remote("", &[("/edge/a", first), ("/edge/b", second)])
            .unwrap_err()
            .to_string();
        assert!(report.contains(&format!("{message}\n --> {place}")), "{report}");
    }
}

#[test]
fn problems_of_the_local_file_are_not_written_to_the_store() {
    let report = read("a.toml", "hunter2 = 1").unwrap_err(); // an unknown key, and no listener
    assert_eq!(
        report.render_for_store(),
        "2 problems in the file on this machine: see its log\n"
    );
    let report = remote("", &[("/edge", "[zzz]")]).unwrap_err();
    assert!(report.render_for_store().contains("unknown key `zzz`"));
}

#[test]
fn syntax_errors_have_a_remedy() {
    let deep = format!("{{\"a\": {}", "[".repeat(500));
    for (name, text, message, hint) in [
        ("a.toml", "a = 1\na = 2", "TOML: duplicate key", "keep one"),
        (
            "a.toml",
            "\u{feff}\n {}",
            "TOML: this is JSON",
            "a configuration in JSON is in a file whose name ends in .json",
        ),
        ("a.json", "{ \"a\": 1, \"a\": 2 }", "duplicate key", "keep one"),
        ("a.json", "{ \"a\": ", "EOF while parsing a value", "write the rest"),
        ("a.json", "{ } }", "trailing characters", "remove what follows"),
        (
            "a.json",
            &deep,
            "recursion limit exceeded",
            "nest tables and lists less deeply",
        ),
        ("a.json", "[listeners.a]\n", "JSON: ", "a name that ends in .toml"),
        ("a.json", "# a comment\n", "JSON: ", "a name that ends in .toml"),
    ] {
        let report = read(name, text).unwrap_err().to_string();
        assert!(report.contains(message) && report.contains(hint), "{report}");
    }
}

#[test]
fn a_directory_is_no_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let report = load(directory.path()).unwrap_err();
    let hint = format!("-c {}", directory.path().join("acequia.toml").display());
    assert!(report.is_unreadable() && report.to_string().contains(&hint), "{report}");
}

#[test]
fn all_syntax_errors_are_counted_and_the_first_100_are_shown() {
    let duplicates = format!("{{{}}}", ["\"a\":1"; 500].join(","));
    let report = read("a.json", &duplicates).unwrap_err().to_string();
    assert_eq!(report.matches("duplicate key").count(), 100, "{report}");
    assert!(report.ends_with("\n499 errors (the first 100 are shown)"), "{report}");
    let report = read("a.toml", &"=\n".repeat(150)).unwrap_err();
    let text = report.to_string();
    assert!(report.error_count() >= 150, "{}", report.error_count());
    assert!(
        text.ends_with(&format!("\n{} errors (the first 100 are shown)", report.error_count())),
        "{text}"
    );
}

#[test]
fn a_report_abbreviates_long_keys() {
    let long_key = "k".repeat(100_000);
    let three_errors = format!(r#"{{"pools":{{"{long_key}":{{"servers":[0,0,0]}}}}}}"#);
    let report = read("a.json", &three_errors).unwrap_err().to_string();
    assert!(report.len() < 10_000, "{} bytes", report.len());
    assert!(report.contains("…"), "{report}");
}

#[test]
fn a_report_shows_a_bounded_number_of_problems_and_counts_all() {
    let keys: String = (0..250).map(|number| format!("zzz{number} = 1\n")).collect();
    let report = read("a.toml", &keys).unwrap_err(); // and there is no listener
    assert_eq!((report.error_count(), report.to_json().len()), (251, 100));
    let text = report.to_string();
    assert_eq!(text.matches("error: ").count(), 100, "{text}");
    assert!(text.ends_with("\n251 errors (the first 100 are shown)"), "{text}");
    let stored = remote("", &[("/edge", &keys)]).unwrap_err().render_for_store();
    assert_eq!(stored.matches("error: ").count(), 100, "{stored}");
    let pools: String = (0..101)
        .map(|number| format!("[pools.p{number}]\nservers = [\"10.0.0.1:1\"]\n"))
        .collect();
    let listener = "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n";
    let warnings = read("a.toml", &format!("{listener}{POOL}{pools}")).unwrap().warnings;
    assert!(
        warnings
            .to_string()
            .ends_with("\n101 warnings (the first 100 are shown)"),
        "{warnings}"
    );
}

#[test]
fn an_integer_of_json_beyond_64_bits_is_out_of_range() {
    for number in ["18446744073709551616", "-9223372036854775809", "1e300"] {
        let text = format!(r#"{{"defaults": {{"backlog": {number}}}}}"#);
        let report = read("a.json", &text).unwrap_err().to_string();
        assert!(
            report.contains("`defaults.backlog`: the number is out of range"),
            "{report}"
        );
    }
    let report = read("a.json", r#"{"defaults": {"backlog": 1.5}}"#)
        .unwrap_err()
        .to_string();
    assert!(report.contains("a float"), "{report}");
}

#[test]
fn a_listener_may_have_the_default_socket_of_the_api_only_if_the_api_has_another_or_none() {
    let listener = |bind: &str| format!("[listeners.l]\nbind = \"unix:{bind}\"\npool = \"p\"\n{POOL}");
    let text = listener(AdminSocket::SYSTEM_PATH);
    let report = read("a.toml", &text).unwrap_err().to_string();
    assert!(report.contains("the default `socket` of [admin]"), "{report}");
    for other in ["\"off\"", "\"/run/other.sock\""] {
        plan(&format!("[admin]\nsocket = {other}\n{text}"));
    }
    plan(&listener("/run/acequia/l.sock"));
}

#[test]
fn a_toml_that_is_nested_too_deep_is_an_error() {
    let keys = vec!["a"; 79].join(".");
    let deep = format!(
        "[{keys}]\n{keys} = {}1{}",
        format!("{{ {keys} = ").repeat(79),
        " }".repeat(79)
    );
    let report = read("a.toml", &deep).unwrap_err();
    assert_eq!(report.error_count(), 1);
    assert!(report.to_string().contains("nested too deep"), "{report}");
    assert!(remote("", &[("/edge", &deep)]).is_err());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.toml");
    std::fs::write(&path, deep).unwrap();
    assert_eq!(admin_socket(&path).unwrap(), AdminSocket::Default);
}

#[test]
fn clones_are_servers_of_weight_1_and_priority_0() {
    let with_clones = |servers: &str, keys: &str| {
        let listener = "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n";
        let scale =
            "[pools.p.scale]\nmax = 2\nsessions_per_server = 9\nports = \"20000-20009\"\ncommand = [\"/bin/app\"]";
        plan(&format!(
            "{listener}[pools.p]\nservers = [{servers}]\n{keys}\n{scale}\n"
        ))
    };
    // Without clones of weight 1, it would be an error that all servers have weight 0.
    with_clones("{ address = \"10.0.0.1:1\", weight = 0 }", "");
    // Without clones of priority 0, `on_recover` would cause a warning that all servers have the same priority.
    let plan = with_clones("{ address = \"10.0.0.1:1\", priority = 1 }", "on_recover = \"close\"");
    assert_eq!(
        plan.pools.iter().next().unwrap().scale.as_ref().unwrap().member_config,
        MemberConfig::default()
    );
}

#[test]
fn a_server_beside_clones_has_no_name_that_a_clone_may_get() {
    let report = |name: &str| {
        let text = format!(
            "[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\n\
             servers = [{{ address = \"10.0.0.1:1\", name = \"{name}\" }}]\n[pools.p.scale]\nmax = 2\n\
             sessions_per_server = 9\nports = \"20000-20009\"\ncommand = [\"/bin/app\"]"
        );
        read("a.toml", &text).err().map(|report| report.to_string())
    };
    for name in ["p-1", "p-30"] {
        let report = report(name).unwrap_or_default();
        assert!(report.contains("write another `name`"), "{name}: {report}");
    }
    for name in ["p-", "p-a", "p1", "q-1"] {
        assert_eq!(report(name), None, "{name}");
    }
}
