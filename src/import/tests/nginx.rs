//! Files of nginx.

use std::collections::HashSet;

use super::*;

#[test]
fn an_nginx_stream_block_with_routes_by_server_name_is_imported() {
    let text = "
events { }
stream {
    map $ssl_preread_server_name $pool {
        hostnames;
        .shop.example.com shop;
        ~^a 10.0.9.9:1;
        api.example.com 10.0.3.1:443;
        default web;
    }
    upstream shop { least_conn; server 10.0.1.1:443 weight=2 max_fails=2 fail_timeout=60s; server 10.0.1.2:443 backup; }
    upstream web { hash $remote_addr consistent; server web.internal:443 max_conns=9; }
    proxy_connect_timeout 2s;
    server {
        listen 443; listen [::]:443;
        allow 10.0.0.0/8; deny all;
        ssl_preread on; proxy_protocol on;
        proxy_pass $pool;
    }
    server { listen 53 udp; proxy_pass web; }
    server { listen 54 udp; listen 54; proxy_pass web; }
}
";
    let lines = lines(Origin::Nginx, text);
    assert_lines(
        &lines,
        &[
            "# not carried over, line 7: ~^a 10.0.9.9:1 (write a name, or `*` as its first label)",
            "# not carried over, line 20: server { listen 53 udp; proxy_pass web } (UDP is not supported)",
            "# not carried over, line 21: listen 54 udp (UDP is not supported)",
            "bind = \"0.0.0.0:54\"",
            "[listeners.port-443]",
            "bind = [\"0.0.0.0:443\", \"[::]:443\"]",
            "pool = \"web\"",
            "idle_timeout = \"10m\"",
            "sni = [\"shop.example.com\", \"*.shop.example.com\"]",
            "allow = \"10.0.0.0/8\"",
            "[pools.10-0-3-1-443]",
            "balance = \"least-conn\"",
            "balance = \"source-hash\"",
            "connect_timeout = \"2s\"",
            "proxy_protocol = \"v1\"",
            "eject_for = \"1m\"",
            "eject_max_for = \"1m\"",
            "  { address = \"10.0.1.2:443\", priority = 1 },",
            "  { address = \"web.internal:443\", max_sessions = 9 },",
        ],
    );
}

#[test]
fn nginx_servers_with_different_connect_settings_get_their_own_pools() {
    let text = "
stream {
    upstream a { server 10.0.0.1:1; }
    server { listen 1; proxy_pass a; }
    server { listen 2; proxy_pass a; proxy_protocol on; }
    server { listen 3; proxy_pass a; proxy_ssl on; }
    server { listen 4; proxy_pass a; proxy_protocol off; }
    server { listen 5; proxy_pass a; proxy_protocol on; }
    server { listen 6; proxy_pass a; proxy_next_upstream off; }
    server { listen 7; proxy_pass a; proxy_next_upstream on; }
}
";
    let lines = lines(Origin::Nginx, text);
    let pools: Vec<_> = lines.iter().filter(|line| line.starts_with("pool = ")).collect();
    assert_eq!(
        pools,
        [
            "pool = \"a\"",
            "pool = \"a-2\"",
            "pool = \"a-3\"",
            "pool = \"a\"",
            "pool = \"a-2\"",
            "pool = \"a-4\"",
            "pool = \"a\""
        ]
    );
    let count = |wanted: &str| lines.iter().filter(|line| line.trim() == wanted).count();
    assert_eq!(count("\"10.0.0.1:1\","), 4, "{lines:#?}");
    assert_eq!(count("proxy_protocol = \"v1\""), 1, "{lines:#?}");
    assert_eq!(count("retries = 0"), 1, "{lines:#?}");
}

#[test]
fn next_upstream_of_nginx_becomes_retries() {
    for (settings, retries) in [
        ("proxy_next_upstream off;", Some("retries = 0")),
        (
            "proxy_next_upstream_tries 5; proxy_next_upstream off;",
            Some("retries = 0"),
        ),
        (
            "proxy_next_upstream on; proxy_next_upstream_tries 5;",
            Some("retries = 4"),
        ),
        ("proxy_next_upstream on;", None),
    ] {
        let text = format!("stream {{ server {{ listen 1; proxy_pass 10.0.0.1:1; {settings} }} }}");
        let lines = lines(Origin::Nginx, &text);
        let found = lines.iter().find(|line| line.starts_with("retries"));
        assert_eq!(found.map(String::as_str), retries, "{settings}");
    }
}

#[test]
fn nginx_proxy_ssl_unix_sockets_and_proxy_bind_are_imported() {
    let text = "
stream {
    upstream shop.internal { server 10.0.1.1:443 max_conns=100; server unix:/run/b.sock; }
    proxy_ssl_trusted_certificate /ca.pem;
    server {
        listen unix:/run/shop.sock;
        proxy_pass shop.internal;
        proxy_ssl on; proxy_ssl_verify on; proxy_ssl_certificate /our.pem; proxy_ssl_certificate_key /our.key;
        proxy_bind 10.0.0.5;
    }
    server {
        listen 2;
        proxy_pass 10.0.2.1:1;
        proxy_ssl on; proxy_ssl_server_name on; proxy_ssl_name $ssl_preread_server_name;
        proxy_bind $remote_addr transparent;
    }
}
";
    let lines = lines(Origin::Nginx, text);
    assert_lines(
        &lines,
        &[
            "bind = \"unix:/run/shop.sock\"",
            "[pools.\"shop.internal\".tls]",
            "sni = \"shop.internal\"",
            "ca_file = \"/ca.pem\"",
            "cert = \"/our.pem\"",
            "key = \"/our.key\"",
            "bind_source = \"10.0.0.5\"",
            "  { address = \"10.0.1.1:443\", max_sessions = 100 },",
            "  \"unix:/run/b.sock\",",
            "sni = \"client\"",
            "verify = false",
            "bind_source = \"client\"",
        ],
    );
    assert_no_line(&lines, |line| line.contains("not carried over"));
}

/// Each pool of the upstream sends the name, even if it has only one server.
#[test]
fn the_default_sni_for_an_nginx_upstream_is_its_name() {
    let text = "
stream {
    upstream one.internal { server 10.0.0.1:1; }
    proxy_ssl on;
    proxy_ssl_server_name on;
    server { listen 1; proxy_pass one.internal; }
    server { listen 2; proxy_pass one.internal; proxy_protocol on; }
    server { listen 3; proxy_pass 10.0.0.2:1; }
}
";
    let lines = lines(Origin::Nginx, text);
    let names: Vec<_> = lines.iter().filter(|line| line.starts_with("sni = ")).collect();
    assert_eq!(names, ["sni = \"one.internal\""; 2], "{lines:#?}");
}

#[test]
fn nginx_client_verification_and_limits_are_imported() {
    let lines = lines(
        Origin::Nginx,
        "
limit_conn_zone $binary_remote_addr zone=addr:10m;
limit_conn_zone $remote_addr zone=more:10m;
limit_conn_zone $server_port zone=all:1m;
ssl_client_certificate /ca.pem;
server {
    listen 1 ssl;
    ssl_certificate /a.pem;
    ssl_handshake_timeout 10s;
    ssl_verify_client on;
    ssl_crl /crl.pem;
    limit_conn addr 5;
    limit_conn more 50;
    limit_conn all 100;
    proxy_download_rate 1m;
    proxy_upload_rate 1024k;
    tcp_nodelay off;
    proxy_pass 10.0.0.1:1;
}
server { listen 2; ssl_verify_client on; limit_conn addr 6; proxy_upload_rate 100; proxy_pass 10.0.0.2:1; }
server { listen 3 ssl; ssl_certificate /a.pem; ssl_verify_client optional; proxy_pass 10.0.0.3:1; }
",
    );
    assert_lines(
        &lines,
        &[
            "[guards.10-0-0-1-1]",
            "sessions_per_source = 5",
            "bandwidth_per_session = \"1024KiB/s\"",
            "guards = \"10-0-0-1-1\"",
            "hello_timeout = \"10s\"",
            "client_auth = { ca_file = \"/ca.pem\", mode = \"require\", crl_file = \"/crl.pem\" }",
            "# not carried over, line 14: limit_conn all 100 (only limits for each client are carried over)",
            "# not carried over, line 17: tcp_nodelay off (it is always on)",
            "sessions_per_source = 6",
            "bandwidth_per_session = \"1KiB/s\"",
            "# note: bandwidth_per_session limits both directions alike; nginx has a rate for each",
            "# note, line 20: nginx counts a client's sessions on all servers with this zone together: use one guard for them",
            "client_auth = { ca_file = \"/ca.pem\", mode = \"request\" }",
        ],
    );
    let without_ca = "server { listen 1; proxy_pass 10.0.0.1:1; } \
                      server { listen 2 ssl; ssl_certificate /a.pem; ssl_verify_client on; proxy_pass 10.0.0.2:1; }";
    let imported = checked(Origin::Nginx, without_ca).unwrap().text;
    let mut about_second = imported.lines().filter(|line| line.contains("10.0.0.2"));
    let left_out = about_second.next().unwrap_or_default();
    assert!(left_out.contains("ssl_client_certificate is missing"), "{imported}");
    assert_eq!(about_second.next(), None, "the second server would be open to all");
}

#[test]
fn an_nginx_server_that_requires_client_certificates_is_left_out_if_its_certificate_is_in_an_included_file() {
    let server = |mode: &str| {
        format!(
            "server {{ listen 1; proxy_pass 10.0.0.1:1; }} \
             server {{ listen 2 ssl; include tls.conf; ssl_verify_client {mode}; ssl_client_certificate /ca.pem; \
             proxy_pass 10.0.0.2:1; }}"
        )
    };
    let imported = checked(Origin::Nginx, &server("on")).unwrap().text;
    let mut about_second = imported.lines().filter(|line| line.contains("10.0.0.2"));
    let left_out = about_second.next().unwrap_or_default();
    assert!(left_out.contains("ssl_certificate is missing"), "{imported}");
    assert_eq!(about_second.next(), None, "the second server would be open to all");
    let imported = checked(Origin::Nginx, &server("optional")).unwrap().text;
    let remark = "ssl_verify_client optional (ssl_certificate is missing)";
    assert!(imported.contains(remark), "{imported}");
    assert!(imported.contains("10.0.0.2"), "{imported}");
}

#[test]
fn the_first_matching_rule_of_nginx_counts() {
    let server = |rules: &str| format!("server {{ listen 1; {rules} proxy_pass 10.9.0.1:1; }}");
    for (rules, expected, absent) in [
        (
            "allow 10.0.0.1; deny 10.0.0.0/30;",
            &["deny = [\"10.0.0.2/31\", \"10.0.0.0\"]"][..],
            "allow",
        ),
        (
            "deny 10.0.0.1; allow 10.0.0.0/30; deny all;",
            &["deny = \"10.0.0.1\"", "allow = \"10.0.0.0/30\""],
            "#",
        ),
        (
            "allow 10.0.0.1; deny 10.0.0.0/30; allow 10.0.0.0/8; deny all;",
            &[
                "deny = [\"10.0.0.2/31\", \"10.0.0.0\"]",
                "allow = [\"10.0.0.1\", \"10.0.0.0/8\"]",
            ],
            "#",
        ),
        ("allow 10.0.0.0/8; deny 10.0.0.1;", &[], "deny"),
    ] {
        let lines = lines(Origin::Nginx, &server(rules));
        assert_lines(&lines, expected);
        assert_no_line(&lines, |line| line.starts_with(absent));
    }
}

#[test]
fn one_rule_of_a_nginx_server_replaces_all_inherited_rules() {
    let stream = |inherited: &str, own: &str| {
        format!("stream {{ {inherited} server {{ listen 1; {own} proxy_pass 10.9.0.1:1; }} }}")
    };
    for (inherited, own, expected) in [
        ("allow 10.0.0.0/8;", "deny 10.1.1.1;", "deny = \"10.1.1.1\""),
        ("deny 10.1.1.1;", "", "deny = \"10.1.1.1\""), // without a rule of its own, a server inherits
    ] {
        assert_lines(&lines(Origin::Nginx, &stream(inherited, own)), &[expected]);
    }
    let lines = lines(Origin::Nginx, &stream("deny 10.1.1.1; deny all;", "allow 10.0.0.0/8;"));
    assert_no_line(&lines, |line| {
        ["deny", "allow", "#"].iter().any(|word| line.starts_with(word))
    });
}

#[test]
fn a_nginx_server_that_refuses_all_clients_is_left_out() {
    for rules in ["deny all;", "deny 10.0.0.1; deny all;", "allow unix:; deny all;"] {
        let text = format!(
            "server {{ listen 1; {rules} proxy_pass 10.9.0.1:1; }} server {{ listen 2; proxy_pass 10.9.0.2:1; }}"
        );
        let lines = lines(Origin::Nginx, &text);
        assert_no_line(&lines, |line| line.contains("\"10.9.0.1"));
        assert_lines(&lines, &["  \"10.9.0.2:1\","]);
    }
}

#[test]
fn nginx_targets_whose_names_become_equal_get_pools_of_their_own() {
    let text = "
upstream a.b { server 10.0.0.1:1; }
upstream a@b { server 10.0.0.2:1; }
upstream a-b { server 10.0.0.3:1; }
server { listen 1; proxy_pass a-b.example:443; }
server { listen 2; proxy_pass a.b.example:443; }
server { listen 3; proxy_pass a.b; }
server { listen 4; proxy_pass [::1]:80; }
server { listen 5; proxy_pass [::1]:80; }
server { listen 6; proxy_pass a@b; }
server { listen 7; proxy_pass a-b; }
";
    let lines = lines(Origin::Nginx, text);
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("[pools."), 6, "{lines:#?}");
    for address in [
        "10.0.0.1:1",
        "10.0.0.2:1",
        "10.0.0.3:1",
        "a-b.example:443",
        "a.b.example:443",
        "[::1]:80",
    ] {
        assert_eq!(count(&format!("  {address:?},")), 1, "{address}: {lines:#?}");
    }
    let used: HashSet<_> = lines.iter().filter(|line| line.starts_with("pool = ")).collect();
    assert_eq!(used.len(), 6, "{lines:#?}");
}

#[test]
fn a_nginx_server_that_is_down_has_weight_0() {
    for options in ["down weight=5", "weight=5 down"] {
        let text = format!(
            "upstream u {{ server 10.0.0.1:1 {options}; server 10.0.0.2:1; }} server {{ listen 1; proxy_pass u; }}"
        );
        let lines = lines(Origin::Nginx, &text);
        let is_down = |line: &&String| line.contains("10.0.0.1:1") && line.contains("weight = 0");
        assert_eq!(lines.iter().filter(is_down).count(), 1, "{options}: {lines:#?}");
    }
}

#[test]
fn pools_of_one_upstream_that_connect_in_different_ways_are_numbered() {
    let server = |number: usize| {
        format!(
            "server {{ listen {number}; proxy_pass u; proxy_bind 10.0.1.{number}; }}\nupstream u {{ server 10.0.0.1:1; }}\n"
        )
    };
    let servers: String = (1..=3).map(server).collect();
    let lines = lines(
        Origin::Nginx,
        &format!("{servers}server {{ listen 9; proxy_pass u; proxy_bind 10.0.1.2; }}"),
    );
    let used: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("pool = ")).collect();
    // The pools of the second and the third upstream `u` have the names `u-2` and `u-3`.
    assert_eq!(used, ["\"u\"", "\"u-4\"", "\"u-5\"", "\"u-4\""], "{lines:#?}");
}

#[test]
fn what_nginx_says_of_tls_is_carried_over_or_remarked_on() {
    let lines = lines(
        Origin::Nginx,
        "
ssl_protocols TLSv1.1 TLSv1.2;
server {
    listen 1 ssl;
    ssl_certificate /a.pem;
    ssl_certificate_key data:$key;
    ssl_certificate $ssl_server_name.pem;
    ssl_crl /;
    proxy_ssl on;
    proxy_ssl_server_name on;
    proxy_ssl_name $other;
    proxy_ssl_certificate $ssl_server_name.pem;
    proxy_ssl_certificate_key /our.key;
    ssl_verify_client optional;
    ssl_client_certificate /ca.pem;
    proxy_pass 10.0.0.1:1;
}
server { listen 2 ssl; ssl_protocols TLSv1.3; ssl_certificate /b.pem; proxy_pass 10.0.0.2:1; }
server { listen 3; proxy_pass 10.0.0.3:1; }
",
    );
    let remarks = lines.iter().map(String::as_str).filter(|line| line.starts_with('#'));
    assert_eq!(
        remarks.collect::<HashSet<_>>(),
        HashSet::from([
            "# not carried over, line 2: of ssl_protocols: TLSv1.1 (acequia has only TLS 1.2 and 1.3)",
            "# note, line 2: TLS 1.3 is accepted, too",
            "# not carried over, line 6: ssl_certificate_key data:$key (not the path of a file)",
            "# not carried over, line 7: ssl_certificate $ssl_server_name.pem (not the path of a file)",
            "# not carried over, line 8: ssl_crl / (not the path of a file)",
            "# not carried over, line 11: proxy_ssl_name $other (write a host name)",
            "# not carried over, line 12: proxy_ssl_certificate $ssl_server_name.pem (not the path of a file)",
        ])
    );
    assert_lines(
        &lines,
        &["certificates = [{ cert = \"/a.pem\" }]", "min_version = \"1.3\""],
    );
    assert_no_line(&lines, |line| line.starts_with("key = ")); // a key without its certificate
}

#[test]
fn nginx_directives_without_effect_cause_no_second_pool() {
    let text = "
upstream u { server 10.0.0.1:1; }
server { listen 1; proxy_pass u; }
server {
    listen 2;
    proxy_ssl off; proxy_ssl_verify on; proxy_ssl_name a.example; proxy_ssl_session_reuse on;
    proxy_protocol off; proxy_bind off; proxy_next_upstream on; proxy_next_upstream_tries 0;
    proxy_pass u;
}
server { listen 3; proxy_ssl on; proxy_pass u; }
server {
    listen 4;
    proxy_ssl on; proxy_ssl_verify off; proxy_ssl_server_name off; proxy_ssl_session_reuse on;
    proxy_ssl_trusted_certificate /ca.pem; proxy_ssl_name a.example; proxy_ssl_certificate_key /our.key;
    proxy_pass u;
}
server { listen 5; proxy_ssl on; proxy_ssl_server_name on; proxy_ssl_name a.example; proxy_pass u; }
";
    let lines = lines(Origin::Nginx, text);
    let used: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("pool = ")).collect();
    assert_eq!(used, ["\"u\"", "\"u\"", "\"u-2\"", "\"u-2\"", "\"u-3\""], "{lines:#?}");
}

#[test]
fn a_slow_start_of_0_is_off_in_nginx() {
    let text = |second: &str| {
        format!(
            "upstream u {{ server 10.0.0.1:1 slow_start=0; server 10.0.0.2:1{second}; }} server {{ listen 1; proxy_pass u; }}"
        )
    };
    let off = lines(Origin::Nginx, &text(""));
    assert_no_line(&off, |line| line.contains("slow_start"));
    let note = "# note, line 1: slow_start of 10.0.0.1:1 is 30s, as for another server";
    assert_lines(
        &lines(Origin::Nginx, &text(" slow_start=30s")),
        &["slow_start = \"30s\"", note],
    );
}

/// nginx compares a key with the whole list that a client offers.
#[test]
fn nginx_maps_of_protocols_are_carried_over_by_their_meaning() {
    let lines = lines(
        Origin::Nginx,
        r"
map $ssl_preread_alpn_protocols $pool {
    ~\bh2\b            10.0.0.1:1;
    ~*\bhttp/1\.1\b    10.0.0.2:1;
    acme-tls/1         10.0.0.3:1;
    h2,http/1.1        10.0.0.4:1;
    ~^h2               10.0.0.5:1;
    include            protocols.map;
    default            10.0.0.6:1;
}
server { listen 1; ssl_preread on; proxy_pass $pool; }
",
    );
    let protocols: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("alpn = ")).collect();
    assert_eq!(protocols, ["\"h2\"", "\"http/1.1\"", "\"acme-tls/1\""], "{lines:#?}");
    assert_lines(
        &lines,
        &[
            "# note, line 5: nginx takes acme-tls/1 only for clients that offer no other protocol",
            r"# not carried over, line 6: h2,http/1.1 10.0.0.4:1 (write the name of one protocol, as in `~\bh2\b`)",
            r"# not carried over, line 7: ~^h2 10.0.0.5:1 (write the name of one protocol, as in `~\bh2\b`)",
            "# not carried over, line 8: include protocols.map (an included file is not read)",
        ],
    );
}

#[test]
fn settings_of_tls_of_nginx_without_certificates_are_reported() {
    let text = "server { listen 1 ssl; listen 2; include tls.conf; ssl_alpn h2 http/1.1; ssl_protocols TLSv1.3; \
                proxy_pass 10.0.0.1:1; }";
    let remark = "# not carried over: TLS with alpn = [\"h2\", \"http/1.1\"], min_version = \"1.3\" (no certificate was \
                  carried over; TLS is passed on at 0.0.0.0:1)";
    assert_lines(&lines(Origin::Nginx, text), &[remark]);
    // `listen 2` has no TLS in nginx either, so that there is no remark about it.
    let with_certificate = lines(
        Origin::Nginx,
        &text.replace("include tls.conf", "ssl_certificate /c.pem"),
    );
    assert_no_line(&with_certificate, |line| line.contains("no certificate"));
}

#[test]
fn large_weights_of_nginx_keep_their_proportion() {
    let pool = |first: &str| {
        let text = format!(
            "upstream u {{ server 10.0.0.1:1 {first}; server 10.0.0.2:1 weight=500; server 10.0.0.3:1 weight=1; \
             server 10.0.0.4:1 down; }} server {{ listen 1; proxy_pass u; }}"
        );
        lines(Origin::Nginx, &text)
    };
    assert_lines(
        &pool("weight=1000"),
        &[
            "# note: weights are scaled: the largest is 256, and was 1000",
            "  { address = \"10.0.0.1:1\", weight = 256 },",
            "  { address = \"10.0.0.2:1\", weight = 128 },",
            "  { address = \"10.0.0.3:1\", weight = 1 },",
            "  { address = \"10.0.0.4:1\", weight = 0 },",
        ],
    );
    assert_lines(&pool(""), &["  { address = \"10.0.0.2:1\", weight = 256 },"]);
    let note = "# note: weights are scaled: the largest is 256, and was 99999999999";
    assert_lines(&pool("weight=99999999999"), &[note]);
}

#[test]
fn other_random_policies_of_nginx_are_noted() {
    for (policy, is_noted) in [
        ("random", true),
        ("random two least_time=connect", true),
        ("random two least_conn", false),
        ("random two", false),
    ] {
        let text = format!("upstream u {{ {policy}; server 10.0.0.1:1; }} server {{ listen 1; proxy_pass u; }}");
        let lines = lines(Origin::Nginx, &text);
        assert_lines(&lines, &["balance = \"random-two\""]);
        let note = "# note, line 1: of two random servers, the less loaded one gets the client";
        assert_eq!(lines.iter().any(|line| line == note), is_noted, "{policy}: {lines:#?}");
    }
}

#[test]
fn the_workers_of_an_nginx_file_without_a_stream_block_are_carried_over() {
    let lines = lines(
        Origin::Nginx,
        "worker_processes 3;\nserver { listen 1; proxy_pass 10.0.0.1:1; }\n",
    );
    assert_lines(&lines, &["workers = 3"]);
    assert_no_line(&lines, |line| line.contains("worker_processes"));
}

#[test]
fn an_nginx_server_without_a_block_gets_one_remark() {
    let imported = checked(
        Origin::Nginx,
        "stream { server 10.0.0.9:1; server { listen 1; proxy_pass 10.0.0.1:1; } }",
    );
    let imported = imported.unwrap();
    assert_eq!(imported.left_out, 1, "{}", imported.text);
}

/// nginx refuses a server without a certificate. So if there is no `ssl_certificate`, it is in an included file, which
/// is not read.
#[test]
fn tls_of_nginx_without_a_certificate_is_reported() {
    let remark = "# not carried over: TLS (no certificate was carried over; TLS is passed on at 0.0.0.0:1, [::]:1)";
    for certificate in ["", "ssl_certificate $ssl_server_name.pem;"] {
        let text =
            format!("server {{ listen 1 ssl; listen [::]:1 ssl; listen 2; {certificate} proxy_pass 10.0.0.1:1; }}");
        assert_lines(&lines(Origin::Nginx, &text), &[remark]);
    }
    let plain = lines(Origin::Nginx, "server { listen 1; proxy_pass 10.0.0.1:1; }");
    assert_no_line(&plain, |line| line.contains("certificate"));
}

#[test]
fn timeouts_of_0_of_nginx_are_not_carried_over() {
    // `allowed`: the only line that may begin with its key; or only a key, with which no line may begin.
    for (directive, allowed) in [
        ("proxy_timeout 0", "idle_timeout = \"10m\""),
        ("proxy_connect_timeout 0s", "connect_timeout = \"1m\""),
        ("preread_timeout 0", "hello_timeout"),
        ("ssl_handshake_timeout 0ms", "hello_timeout"),
    ] {
        let text = format!("server {{ listen 1; {directive}; proxy_pass 10.0.0.1:1; }}");
        let lines = lines(Origin::Nginx, &text);
        let remark = format!("# not carried over, line 1: {directive} (0 expires at once in nginx; a default is used)");
        assert_lines(&lines, &[&remark]);
        let (key, _) = allowed.split_once(" = ").unwrap_or((allowed, ""));
        assert_no_line(&lines, |line| line.starts_with(key) && line != allowed);
        assert_no_line(&lines, |line| line.contains("1ms")); // as `duration_value` writes a 0
    }
}

#[test]
fn values_of_nginx_that_are_too_large_here_are_cut_with_a_note() {
    for (upstream, directive, written, cut, most) in [
        ("", "proxy_timeout 400d;", "idle_timeout = \"8760h\"", "400d", "8760h"),
        (
            "",
            "proxy_connect_timeout 9y;",
            "connect_timeout = \"8760h\"",
            "9y",
            "8760h",
        ),
        ("fail_timeout=400d", "", "eject_for = \"8760h\"", "400d", "8760h"),
        ("max_fails=3000", "", "eject_after = 1000", "3000", "1000"),
        (
            "max_conns=2000000",
            "",
            "  { address = \"10.0.0.1:1\", max_sessions = 1000000 },",
            "2000000",
            "1000000",
        ),
    ] {
        let text = format!(
            "upstream u {{ server 10.0.0.1:1 {upstream}; }}\nserver {{ listen 1; proxy_pass u;\n{directive} }}"
        );
        let line = if directive.is_empty() { 1 } else { 3 };
        let note = format!("# note, line {line}: {cut} is more than is possible here: {most} is used");
        assert_lines(&lines(Origin::Nginx, &text), &[written, &note]);
    }
    let a_year = "server { listen 1; proxy_timeout 1y; proxy_pass 10.0.0.1:1; }";
    let lines = lines(Origin::Nginx, a_year);
    assert_lines(&lines, &["idle_timeout = \"8760h\""]);
    assert_no_line(&lines, |line| line.starts_with("# note"));
}

#[test]
fn a_weight_of_0_of_nginx_is_left_out() {
    let text = "upstream u { server 10.0.0.1:1 weight=0; } server { listen 1; proxy_pass u; }";
    let remark = "# not carried over, line 1: weight=0 (nginx accepts no weight of 0)";
    assert_lines(&lines(Origin::Nginx, text), &[remark, "  \"10.0.0.1:1\","]);
}

/// A rule that is missing would open the server to other clients.
#[test]
fn an_nginx_file_that_is_cut_off_is_an_error() {
    let whole = "stream {\n  server {\n    listen 1;\n    proxy_pass 10.0.0.1:1;\n    deny all;\n  }\n}\n";
    for (end, message) in [
        ("deny", "line 2: the block that begins here has no `}`"),
        (" all", "line 5: the directive that begins here has no `;`"),
        ("  }\n}", "line 2: the block that begins here has no `}`"),
        ("}\n", "line 1: the block that begins here has no `}`"),
    ] {
        let cut = &whole[..whole.rfind(end).unwrap()];
        let error = import(Origin::Nginx, cut).unwrap_err();
        assert_eq!(error.to_string(), message, "{cut}");
    }
}
