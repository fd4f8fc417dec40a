//! Imported files. Every result is a valid configuration.

mod haproxy;
mod nginx;
mod generated;

use super::{Import, ImportError, Origin, import};
use crate::config::read;
use crate::config::report::ColorChoice;

/// Imports a file, and checks that the result has no errors.
fn checked(origin: Origin, text: &str) -> Result<Import, ImportError> {
    let imported = import(origin, text)?;
    if let Err(report) = read("imported.toml", &imported.text) {
        panic!(
            "{}\nfrom\n{text}\nto\n{}",
            report.render(ColorChoice::Never),
            imported.text
        );
    }
    let comments = imported
        .text
        .lines()
        .filter(|line| line.starts_with("# not carried over"));
    assert_eq!(comments.count(), imported.left_out);
    Ok(imported)
}

/// The lines of the result without its heading and empty lines.
fn lines(origin: Origin, text: &str) -> Vec<String> {
    let imported = checked(origin, text).unwrap();
    let lines = imported.text.lines().skip_while(|line| line.starts_with('#'));
    lines.filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Checks that all of these are among the lines.
#[track_caller]
fn assert_lines(lines: &[String], expected: &[&str]) {
    for expected in expected {
        assert!(lines.iter().any(|line| line == expected), "{expected} in {lines:#?}");
    }
}

/// Checks that there is no such line.
#[track_caller]
fn assert_no_line(lines: &[String], is_such: impl Fn(&str) -> bool) {
    assert!(!lines.iter().any(|line| is_such(line)), "{lines:#?}");
}

#[test]
fn addresses_with_and_without_tls_become_two_listeners() {
    let haproxy = "
listen a
    mode tcp
    bind :1
    bind :2 ssl crt /a.pem
    server s 10.0.0.1:1
";
    let nginx = "server { listen 1; listen 2 ssl; ssl_certificate /a.pem; proxy_pass 10.0.0.1:1; }";
    for (origin, text) in [(Origin::Haproxy, haproxy), (Origin::Nginx, nginx)] {
        let lines = lines(origin, text);
        let is_heading_or_bind = |line: &&String| line.starts_with('[') || line.starts_with("bind = ");
        let sections: Vec<_> = lines.iter().filter(is_heading_or_bind).collect();
        assert!(
            sections[0].starts_with("[listeners.") && sections[1] == "bind = \"0.0.0.0:2\"",
            "{lines:#?}"
        );
        assert!(
            sections[2].ends_with(".tls]") && sections[3].ends_with("-plain]"),
            "{lines:#?}"
        );
        assert_eq!(sections[4], "bind = \"0.0.0.0:1\"");
        assert!(!sections[5].ends_with(".tls]"), "{lines:#?}");
    }
}

#[test]
fn a_limit_of_addresses_that_become_two_listeners_is_noted() {
    let haproxy = |binds: &str| format!("listen a\n mode tcp\n maxconn 9\n {binds}\n server s 10.0.0.1:1\n");
    let nginx = |listens: &str| {
        format!(
            "limit_conn_zone $remote_addr zone=z:1m;\n\
             server {{ {listens} ssl_certificate /a.pem; limit_conn z 5; proxy_pass 10.0.0.1:1; }}"
        )
    };
    let notes = |origin, text: &str, key: &str| {
        let note = format!(
            "# note: the addresses differ, so that there are 2 listeners with this {key} each; it was one limit for all"
        );
        lines(origin, text).iter().filter(|line| **line == note).count()
    };
    for (origin, text, key, expected) in [
        (
            Origin::Haproxy,
            haproxy("bind :1\n bind :2 ssl crt /a.pem"),
            "max_connections",
            2,
        ),
        (Origin::Haproxy, haproxy("bind :1\n bind :2"), "max_connections", 0),
        (
            Origin::Nginx,
            nginx("listen 1; listen 2 ssl;"),
            "sessions_per_source",
            2,
        ),
        (
            Origin::Nginx,
            nginx("listen 1 ssl; listen 2 ssl;"),
            "sessions_per_source",
            0,
        ),
    ] {
        assert_eq!(notes(origin, &text, key), expected, "{text}");
    }
}

#[test]
fn servers_that_differ_in_pool_settings_get_a_note() {
    let haproxy = "
listen l
    bind :1
    server a 10.0.0.1:1 check inter 2s
    server b 10.0.0.2:1 check inter 10s fall 5 slowstart 30s on-marked-down shutdown-sessions
    server c 10.0.0.3:1 resolve-prefer ipv6
listen agents
    bind :2
    server a 10.0.0.1:1 agent-check agent-port 7
    server b 10.0.0.2:1 agent-check agent-port 8
listen tls
    bind :3
    server a 10.0.0.1:1 ssl sni str(a.example) verify none
    server b 10.0.0.2:1 ssl sni str(b.example) verify required
listen without_verify
    bind :4
    server a 10.0.1.1:1 ssl verify none
    server b 10.0.1.2:1 ssl ca-file /ca.pem
    server c 10.0.1.3:1 ssl verify none ca-file /ca.pem
listen same_verify
    bind :5
    server a 10.0.2.1:1 ssl verify required
    server b 10.0.2.2:1 ssl ca-file @system-ca
";
    let nginx = "
upstream u {
    server 10.0.0.1:1;
    server 10.0.0.2:1 max_fails=3 fail_timeout=5s;
    server 10.0.0.3:1 max_fails=0 fail_timeout=5;
}
server { listen 1; proxy_pass u; }
";
    for (origin, text, expected) in [
        (
            Origin::Haproxy,
            haproxy,
            &[
                "interval = \"2s\"",
                "slow_start = \"30s\"",
                "# note, line 5: interval of 10.0.0.2:1 is 2s, as for the first checked server, instead of 10s",
                "# note, line 5: fall of 10.0.0.2:1 is not set, as for the first checked server, instead of 5",
                "# note, line 4: slow_start of 10.0.0.1:1 is 30s, as for another server",
                "# note, line 6: slow_start of 10.0.0.3:1 is 30s, as for another server",
                "# note, line 5: on_down of 10.0.0.2:1 is not set, as for the first server, instead of \"close\"",
                "# note, line 6: resolve of 10.0.0.3:1 is not set, as for the first server, instead of ipv6",
                "# note, line 10: port of the agent of 10.0.0.2:1 is 7, as for the first server with an agent, instead of 8",
                "# note, line 14: sni of 10.0.0.2:1 is a.example, as for the first server, instead of b.example",
                "# note, line 14: verify of 10.0.0.2:1 is false, as for the first server, instead of true",
                "# note, line 18: verify of 10.0.1.2:1 is false, as for the first server, instead of true",
            ][..],
        ),
        (
            Origin::Nginx,
            nginx,
            &[
                "eject_after = 3",
                "eject_for = \"5s\"",
                "# note, line 3: max_fails of 10.0.0.1:1 is 3, as for another server",
                "# note, line 5: max_fails of 10.0.0.3:1 is 3, as for another server, instead of 0",
                "# note, line 3: fail_timeout of 10.0.0.1:1 is 5s, as for another server",
            ][..],
        ),
    ] {
        assert_lines(&lines(origin, text), expected);
    }
    let notes = lines(Origin::Haproxy, haproxy);
    let is_noted = |server: &str| {
        notes
            .iter()
            .any(|line| line.contains(server) && line.starts_with("# note"))
    };
    assert!(
        !is_noted("10.0.1.3:1") && !is_noted("10.0.2.2:1"),
        "these have the same effect: {notes:#?}"
    );
    let notes = lines(Origin::Nginx, nginx);
    let is_noted = notes.iter().any(|line| line.contains("fail_timeout of 10.0.0.3:1"));
    assert!(!is_noted, "5 is 5s: {notes:#?}");
}

#[test]
fn duplicate_entries_are_written_once() {
    let haproxy = "
listen a
    mode tcp
    bind :1 ssl crt /a.pem alpn h2,h2
    tcp-request connection expect-proxy layer4 if { src 10.0.0.1 192.0.2.0/24 10.0.0.1 }
    tcp-request connection reject if { src 10.66.0.0/16 ::ffff:10.66.1.2/112 }
    tcp-request connection reject unless { src 10.0.0.1/8 10.0.0.0/8 }
    use_backend a if { req.ssl_alpn h2 \"\" }
    server s 10.0.0.1:1 ssl alpn h2,h2
";
    let nginx = "
server {
    listen 1 ssl proxy_protocol;
    set_real_ip_from 10.0.0.1;
    set_real_ip_from 192.0.2.0/24;
    set_real_ip_from 10.0.0.1/32;
    deny 10.66.0.0/16; deny 10.66.1.2/16; deny ::ffff:10.66.1.2/112; allow 10.0.0.0/8; allow 10.0.0.1/8; deny all;
    ssl_certificate /a.pem;
    ssl_alpn h2 h2;
    proxy_pass 10.0.0.1:1;
}
";
    for (origin, text) in [(Origin::Haproxy, haproxy), (Origin::Nginx, nginx)] {
        let lines = lines(origin, text);
        let expected = [
            "accept_proxy = { from = [\"10.0.0.1\", \"192.0.2.0/24\"] }",
            "deny = \"10.66.0.0/16\"",
            "allow = \"10.0.0.0/8\"",
            "alpn = \"h2\"",
        ];
        assert_lines(&lines, &expected);
    }
}

#[test]
fn servers_that_are_out_of_use_get_no_sessions() {
    let haproxy = "
listen a
    mode tcp
    bind :1
    use_backend b if { req.ssl_sni b.example }
    server s 10.0.0.1:1 disabled
    server t 10.0.0.2:1 backup
backend b
    mode tcp
    server s 10.0.0.3:1 disabled
    server t 10.0.0.4:1 weight 0
";
    let nginx = "
upstream a { server 10.0.0.1:1 down; server 10.0.0.2:1; }
upstream b { server 10.0.0.3:1 down; }
server { listen 1; proxy_pass a; }
server { listen 2; proxy_pass b; }
";
    for (origin, text) in [(Origin::Haproxy, haproxy), (Origin::Nginx, nginx)] {
        let text = checked(origin, text).unwrap().text;
        let comment = "# not carried over: pool b (all of its servers are disabled, or have weight 0)";
        assert!(text.contains(comment), "{text}");
        assert!(!text.contains("10.0.0.3") && !text.contains("pool = \"b\""), "{text}");
        let disabled = text.lines().find(|line| line.contains("10.0.0.1:1")).unwrap();
        assert!(disabled.contains("weight = 0"), "{text}");
    }
    let error = import(
        Origin::Nginx,
        "upstream b { server 10.0.0.3:1 down; } server { listen 2; proxy_pass b; }",
    );
    assert!(error.unwrap_err().to_string().contains("pool b (all of its servers"));
}

#[test]
fn a_file_without_tcp_sections_is_an_error() {
    let message = |origin, text| import(origin, text).unwrap_err().to_string();
    assert!(message(Origin::Haproxy, "").ends_with("a server that can be carried over"));
    assert!(message(Origin::Nginx, "http { }").starts_with("no TCP server in a `stream` block can be carried over:\n"));
}

#[test]
fn invalid_paths_of_certificates_are_left_out() {
    let haproxy = "
listen a
    mode tcp
    bind :1 ssl crt / crt \"\" crt /a.pem verify optional ca-file \"\"
    bind :2 ssl crt / verify required ca-file /ca.pem
    bind :3 ssl crt /a.pem verify required
    server s 10.0.0.1:1
";
    let nginx = "server { listen 1 ssl; ssl_certificate \"\"; ssl_certificate /a/; ssl_certificate /a.pem; \
                 ssl_certificate_key \"\"; ssl_certificate_key /b; ssl_certificate_key \"\"; proxy_pass 10.0.0.1:1; }";
    for (origin, text) in [(Origin::Haproxy, haproxy), (Origin::Nginx, nginx)] {
        let expected = ["bind = \"0.0.0.0:1\"", "certificates = [{ cert = \"/a.pem\" }]"];
        assert_lines(&lines(origin, text), &expected);
    }
}

#[test]
fn only_addresses_with_accept_proxy_trust_a_header() {
    let haproxy = "
listen a
    mode tcp
    bind :1 accept-proxy ssl crt /a.pem
    bind :2 ssl crt /a.pem
    bind :3
    bind :4 accept-proxy
    server s 10.0.0.1:1
";
    let nginx = "server { listen 1 ssl proxy_protocol; listen 2 ssl; listen 3; listen 4 proxy_protocol; \
                 ssl_certificate /a.pem; proxy_pass 10.0.0.1:1; }";
    for (origin, text) in [(Origin::Haproxy, haproxy), (Origin::Nginx, nginx)] {
        let lines = lines(origin, text);
        let shown = lines.iter().filter_map(|line| {
            let (key, value) = line.split_once(" = ")?;
            match key {
                "bind" => Some(value),
                "accept_proxy" | "certificates" => Some(key),
                _ => None,
            }
        });
        let expected = [
            "\"0.0.0.0:1\"",
            "accept_proxy",
            "certificates",
            "\"0.0.0.0:2\"",
            "certificates",
            "\"0.0.0.0:4\"",
            "accept_proxy",
            "\"0.0.0.0:3\"",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{lines:#?}");
        for suffix in ["-direct]", "-plain]", "-plain-direct]"] {
            assert!(lines.iter().any(|line| line.ends_with(suffix)), "{suffix}: {lines:#?}");
        }
    }
}

#[test]
fn the_order_of_a_map_of_nginx_needs_no_note() {
    let text = "
map $ssl_preread_server_name $x { hostnames; *.a.example 10.0.0.1:1; www.a.example 10.0.0.2:1; }
server { listen 1; ssl_preread on; proxy_pass $x; }
";
    let lines = lines(Origin::Nginx, text);
    assert_lines(&lines, &["sni = \"*.a.example\"", "sni = \"www.a.example\""]);
    assert_no_line(&lines, |line| line.starts_with("# note"));
}
