//! Every result passes the check, whatever the imported file.

use proptest::prelude::*;

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

#[test]
fn haproxy_is_imported_by_server_name() {
    let text = "
global
    maxconn 5000
    chroot /var/lib/haproxy
defaults
    mode tcp
    timeout connect 5s
    timeout client 1m
    timeout server 2m
    timeout http-request 10s
frontend https
    bind *:443,[::]:443
    tcp-request inspect-delay 3s
    tcp-request content accept if { req_ssl_hello_type 1 }
    acl shop req.ssl_sni -i shop.example.com
    acl shop req.ssl_sni -m end .shop.example.com
    acl office src 10.0.0.0/8
    acl regular req.ssl_sni -m reg ^a
    use_backend inside if shop office
    use_backend shop if shop or { req.ssl_sni -i store.example.com }
    use_backend shop if regular
    default_backend web
backend shop
    balance leastconn
    default-server inter 5s fall 2
    server s1 10.0.1.1:443 check weight 3 send-proxy-v2
    server s2 10.0.1.2:443 check backup cookie x
backend inside
    balance source
    server i 10.0.2.1:443
backend web
    server w1 web.internal:443 check port 8443
";
    let expected = "
# not carried over, line 4: chroot /var/lib/haproxy
# not carried over, line 10: timeout http-request 10s
[runtime]
max_connections = 5000
[listeners.https]
# not carried over, line 18: acl regular req.ssl_sni -m reg ^a (regular expressions cannot be carried over)
# not carried over, line 21: use_backend shop if regular (regular expressions cannot be carried over)
bind = [\"0.0.0.0:443\", \"[::]:443\"]
pool = \"web\"
hello_timeout = \"3s\"
idle_timeout = \"2m\"
[[listeners.https.routes]]
sni = [\"shop.example.com\", \"*.shop.example.com\"]
from = \"10.0.0.0/8\"
pool = \"inside\"
[[listeners.https.routes]]
sni = [\"shop.example.com\", \"*.shop.example.com\"]
pool = \"shop\"
[[listeners.https.routes]]
sni = \"store.example.com\"
pool = \"shop\"
[pools.shop]
# note, line 27: proxy_protocol of 10.0.1.2:443 is that of the first server
# not carried over, line 27: cookie x
connect_timeout = \"5s\"
balance = \"least-conn\"
proxy_protocol = \"v2\"
servers = [
  { address = \"10.0.1.1:443\", name = \"s1\", weight = 3 },
  { address = \"10.0.1.2:443\", name = \"s2\", priority = 1 },
]
[pools.shop.health]
interval = \"5s\"
fall = 2
[pools.inside]
connect_timeout = \"5s\"
balance = \"source-hash\"
servers = [
  { address = \"10.0.2.1:443\", name = \"i\" },
]
[pools.inside.health]
check = \"off\"
[pools.web]
connect_timeout = \"5s\"
balance = \"round-robin\"
servers = [
  { address = \"web.internal:443\", name = \"w1\" },
]
[pools.web.health]
port = 8443
";
    let imported = checked(Origin::Haproxy, text).unwrap();
    let lines: Vec<&str> = imported.text.lines().filter(|line| !line.is_empty()).skip(3).collect();
    assert_eq!(lines, expected.trim().lines().collect::<Vec<_>>());
}

#[test]
fn haproxy_checks_guards_and_certificates_are_imported() {
    let text = "
listen redis
    bind :6379 ssl crt /etc/tls/redis.pem alpn h2,http/1.1 verify required ca-file /etc/tls/ca.pem
    tcp-request connection reject if { src 10.66.0.0/16 }
    tcp-request connection reject unless { src 10.0.0.0/8 }
    tcp-request connection expect-proxy layer4 if { src 10.0.0.9 }
    option tcp-check
    tcp-check send PING\\r\\n
    tcp-check expect string +PONG
    tcp-check send info\\ replication\\r\\n
    tcp-check expect string role:master
    server-template r 3 redis.internal:6379 check on-marked-down shutdown-sessions
frontend web
    bind :80
    mode http
";
    let lines = lines(Origin::Haproxy, text);
    assert_lines(
        &lines,
        &[
            "allow = \"10.0.0.0/8\"",
            "deny = \"10.66.0.0/16\"",
            "guards = \"redis\"",
            "accept_proxy = { from = \"10.0.0.9\" }",
            "certificates = [{ cert = \"/etc/tls/redis.pem\" }]",
            "alpn = [\"h2\", \"http/1.1\"]",
            "client_auth = { ca_file = \"/etc/tls/ca.pem\", mode = \"require\" }",
            "role = \"primary\"",
            "on_down = \"close\"",
            "  \"redis.internal:6379\",",
            "check = \"redis\"",
        ],
    );
    let remarks = checked(Origin::Haproxy, text).unwrap();
    assert_eq!(remarks.left_out, 1, "{}", remarks.text);
}

#[test]
fn nginx_is_imported_by_server_name() {
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
fn haproxy_tls_limits_sockets_and_sources_are_imported() {
    let text = "
global
    ssl-server-verify none
defaults
    mode tcp
    timeout connect 3s
frontend f
    bind /run/f.sock mode 660
    bind :1
    use_backend queue if { src 10.0.0.0/8 }
    default_backend tls
backend tls
    default-server ssl sni str(shop.internal) ca-file /ca.pem alpn h2,http/1.1
    server a shop.internal:443 check verify required crt /our.pem
backend queue
    timeout queue 10s
    source 10.0.0.5:0
    server a 10.0.1.1:5432 maxconn 90
    server b unix@/run/b.sock maxconn 40 source 10.0.0.5
    server c 10.0.1.3:5432 source 0.0.0.0 usesrc clientip
";
    let lines = lines(Origin::Haproxy, text);
    assert_lines(
        &lines,
        &[
            "bind = [\"unix:/run/f.sock\", \"0.0.0.0:1\"]",
            "unix_mode = \"660\"",
            "[pools.tls.tls]",
            "sni = \"shop.internal\"",
            "ca_file = \"/ca.pem\"",
            "cert = \"/our.pem\"",
            "alpn = [\"h2\", \"http/1.1\"]",
            "check = \"tls\"",
            "queue = { timeout = \"10s\" }",
            "bind_source = \"10.0.0.5\"",
            "# note, line 20: bind_source of 10.0.1.3:5432 is that of the first server, and not client",
            "  { address = \"10.0.1.1:5432\", name = \"a\", max_sessions = 90 },",
            "  { address = \"unix:/run/b.sock\", name = \"b\", max_sessions = 40 },",
            "  { address = \"10.0.1.3:5432\", name = \"c\" },",
        ],
    );
    assert!(!lines.iter().any(|line| line.starts_with("verify")), "{lines:#?}");
}

#[test]
fn haproxy_tls_without_names_is_imported() {
    let text = "
listen a
    mode tcp
    bind :1
    use_backend b if { req.ssl_sni b.example }
    server a 10.0.0.1:1 ssl verify none sni req.ssl_sni maxconn 9 check check-ssl
backend b
    mode tcp
    server b 10.0.0.2:1 ssl
";
    let lines = lines(Origin::Haproxy, text);
    assert_lines(
        &lines,
        &[
            "[pools.a.tls]",
            "sni = \"client\"",
            "verify = false",
            "max_sessions = 9",
            "queue = {}",
            "# not carried over: TLS with the servers (routes by server name or protocol pass the TLS of clients on to it)",
        ],
    );
    assert!(!lines.contains(&String::from("[pools.b.tls]")), "{lines:#?}");
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
        let sections: Vec<_> = lines.iter().filter(|line| line.starts_with(['[', 'b'])).collect();
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
fn haproxy_check_kinds_are_imported() {
    let servers = "mode tcp\nbind :1\nserver a 10.0.0.1:80";
    for (rest, expected) in [
        (
            "check check-ssl check-sni a.example\n option httpchk GET /up HTTP/1.1\\r\\nHost:\\ a.example\n http-check expect rstatus ^2",
            &[
                "check = \"http\"",
                "path = \"/up\"",
                "host = \"a.example\"",
                "expect = \"200-299\"",
                "tls = true",
                "sni = \"a.example\"",
                "verify = true",
            ][..],
        ),
        (
            "check\n option httpchk\n http-check send meth HEAD uri /x hdr Host h hdr X-A \"b c\"\n http-check expect ! status 500-599",
            &[
                "method = \"HEAD\"",
                "path = \"/x\"",
                "headers = { \"X-A\" = \"b c\" }",
                "expect = \"100-499\"",
            ],
        ),
        (
            "check\n option httpchk /\n http-check expect string a.b",
            &["method = \"OPTIONS\"", "expect = \"100-599\"", "body = 'a\\.b'"],
        ),
        (
            "check\n option tcp-check\n tcp-check connect port 26\n tcp-check expect rstring '^220 '\n tcp-check send QUIT\\r\\n\n \
             tcp-check expect binary 32320a",
            &[
                "check = \"send-expect\"",
                "port = 26",
                "steps = [{ expect = \"^220 \" }, { send = \"QUIT\\r\\n\", expect = '\\x32\\x32\\x0a' }]",
            ],
        ),
        (
            "check\n option smtpchk",
            &[
                "steps = [{ expect = \"^220\" }, { send = \"HELO localhost\\r\\n\", expect = \"^250\" }, { send = \"QUIT\\r\\n\" }]",
            ],
        ),
        (
            "agent-check agent-port 9999 agent-inter 5s agent-send a\\n",
            &[
                "check = \"agent\"",
                "port = 9999",
                "interval = \"5s\"",
                "send = \"a\\n\"",
            ],
        ),
        (
            "check\n option tcp-check\n tcp-check send AUTH\\ secret\\r\\n\n tcp-check send PING\\r\\n\n tcp-check expect string +PONG",
            &[
                "check = \"redis\"",
                "# note, line 6: write the password of AUTH to a file: `password_file`",
            ],
        ),
        // The configuration that comes with Patroni.
        (
            "check\n option httpchk GET",
            &[
                "# note, line 5: HAProxy asks for the path `GET`; here it is `/`",
                "check = \"http\"",
                "method = \"OPTIONS\"",
            ],
        ),
        (
            "check\n option httpchk GET bad",
            &[
                "# not carried over: check = \"http\", path = \"bad\" (not a valid check; servers are checked by a connect)",
            ],
        ),
        (
            "check agent-check agent-port 1",
            &[
                "# not carried over: agent-check (a pool has one kind of check: `check` of the servers, or check = \"agent\")",
            ],
        ),
    ] {
        let lines = lines(Origin::Haproxy, &format!("listen a\n{servers} {rest}\n"));
        assert_lines(&lines, expected);
        assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:#?}");
    }
}

#[test]
fn a_0_that_means_the_haproxy_default_sets_nothing() {
    let text = "
global
    maxconn 0
    nbthread 0
listen a
    mode tcp
    maxconn 0
    backlog 0
    timeout connect 0
    timeout queue 0
    bind :443 ssl crt /etc/haproxy/certs/ maxconn 0 backlog 0
    server s 10.0.0.1:1 maxconn 5
";
    let lines = lines(Origin::Haproxy, text);
    assert_lines(&lines, &["certificates = [{ directory = \"/etc/haproxy/certs\" }]"]);
    let sets = |key: &str| lines.iter().any(|line| line.starts_with(key));
    for key in [
        "max_connections",
        "workers",
        "backlog",
        "connect_timeout",
        "queue = { timeout",
    ] {
        assert!(!sets(key), "{key} in {lines:#?}");
    }
    assert!(
        lines.iter().any(|line| line.contains("0 means HAProxy's default")),
        "{lines:#?}"
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
            "pool = \"a-2\""
        ]
    );
    let count = |wanted: &str| lines.iter().filter(|line| line.trim() == wanted).count();
    assert_eq!(count("\"10.0.0.1:1\","), 3, "{lines:#?}");
    assert_eq!(count("proxy_protocol = \"v1\""), 1, "{lines:#?}");
}

#[test]
fn nginx_without_next_upstream_gets_no_retries() {
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
fn nginx_tls_sockets_and_sources_are_imported() {
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
    assert!(
        !lines.iter().any(|line| line.contains("not carried over")),
        "{lines:#?}"
    );
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
                "# note, line 5: interval of 10.0.0.2:1 is that of the first server, and not 10s",
                "# note, line 5: fall of 10.0.0.2:1 is that of the first server, and not 5",
                "# note, line 4: slow_start of 10.0.0.1:1 is that of another server",
                "# note, line 6: slow_start of 10.0.0.3:1 is that of another server",
                "# note, line 5: on_down of 10.0.0.2:1 is that of the first server, and not \"close\"",
                "# note, line 6: resolve of 10.0.0.3:1 is that of the first server, and not ipv6",
                "# note, line 10: port of the agent of 10.0.0.2:1 is that of the first server, and not 8",
                "# note, line 14: sni of 10.0.0.2:1 is that of the first server, and not b.example",
                "# note, line 14: verify of 10.0.0.2:1 is that of the first server, and not true",
            ][..],
        ),
        (
            Origin::Nginx,
            nginx,
            &[
                "eject_after = 3",
                "eject_for = \"5s\"",
                "# note, line 3: max_fails of 10.0.0.1:1 is 3, that of another server",
                "# note, line 5: max_fails of 10.0.0.3:1 is 3, that of another server, and not 0",
                "# note, line 3: fail_timeout of 10.0.0.1:1 is 5s, that of another server",
                "# note, line 5: fail_timeout of 10.0.0.3:1 is 5s, that of another server, and not 5",
            ][..],
        ),
    ] {
        assert_lines(&lines(origin, text), expected);
    }
}

#[test]
fn nginx_clients_are_verified_and_limited_as_they_were() {
    let lines = lines(
        Origin::Nginx,
        "
limit_conn_zone $binary_remote_addr zone=addr:10m;
limit_conn_zone $server_port zone=all:1m;
ssl_client_certificate /ca.pem;
server {
    listen 1 ssl;
    ssl_certificate /a.pem;
    ssl_handshake_timeout 10s;
    ssl_verify_client on;
    ssl_crl /crl.pem;
    limit_conn addr 5;
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
            "# not carried over, line 12: limit_conn all 100 (only limits for each client are carried over)",
            "# not carried over, line 15: tcp_nodelay off (it is always on)",
            "sessions_per_source = 6",
            "bandwidth_per_session = \"1KiB/s\"",
            "# note: bandwidth_per_session is for each direction; nginx limits them by themselves",
            "# note, line 18: nginx counts the clients of all servers with this limit together: use one guard for them",
            "client_auth = { ca_file = \"/ca.pem\", mode = \"request\" }",
        ],
    );
    let open = "server { listen 1; proxy_pass 10.0.0.1:1; } \
                server { listen 2 ssl; ssl_certificate /a.pem; ssl_verify_client on; proxy_pass 10.0.0.2:1; }";
    let imported = checked(Origin::Nginx, open).unwrap().text;
    let mut about_it = imported.lines().filter(|line| line.contains("10.0.0.2"));
    let left_out = about_it.next().unwrap_or_default();
    assert!(left_out.contains("ssl_client_certificate is missing"), "{imported}");
    assert_eq!(about_it.next(), None, "it would be open to all");
}

#[test]
fn an_nginx_server_whose_certificate_is_elsewhere_does_not_lose_that_it_verifies_clients() {
    let server = |mode: &str| {
        format!(
            "server {{ listen 1; proxy_pass 10.0.0.1:1; }} \
             server {{ listen 2 ssl; include tls.conf; ssl_verify_client {mode}; ssl_client_certificate /ca.pem; \
             proxy_pass 10.0.0.2:1; }}"
        )
    };
    let imported = checked(Origin::Nginx, &server("on")).unwrap().text;
    let mut about_it = imported.lines().filter(|line| line.contains("10.0.0.2"));
    let left_out = about_it.next().unwrap_or_default();
    assert!(left_out.contains("ssl_certificate is missing"), "{imported}");
    assert_eq!(about_it.next(), None, "it would be open to all");
    let imported = checked(Origin::Nginx, &server("optional")).unwrap().text;
    let remark = "ssl_verify_client optional (ssl_certificate is missing)";
    assert!(imported.contains(remark), "{imported}");
    assert!(imported.contains("10.0.0.2"), "{imported}");
}

#[test]
fn a_haproxy_address_whose_certificates_are_in_a_list_does_not_lose_that_it_verifies_clients() {
    let text = "
listen a
    mode tcp
    bind :1
    bind :2 ssl crt-list /list verify required ca-file /ca.pem
    server s 10.0.0.1:1
";
    let imported = checked(Origin::Haproxy, text).unwrap().text;
    assert!(imported.contains("bind = \"0.0.0.0:1\""), "{imported}");
    assert!(imported.contains("crt is missing"), "{imported}");
}

#[test]
fn settings_that_would_be_errors_are_left_out() {
    let text = "
defaults
    mode tcp
frontend a
    bind :1
    bind :1
    default_backend loop
    use_backend missing if { req.ssl_sni a.example }
frontend b
    bind :2
    default_backend empty
backend loop
    server self 127.0.0.1:1
    server one 127.0.0.1:9
    server two 127.0.0.1:9
backend empty
    server socket abns@a
";
    let imported = checked(Origin::Haproxy, text).unwrap();
    for expected in [
        "address 0.0.0.0:1 (it is bound already)",
        "server 127.0.0.1:1 (it is the listener itself)",
        "server 127.0.0.1:9 (it is in this pool already)",
        "route to pool missing (there is no such pool)",
        "pool empty (no server is left)",
        "listener b (no pool is left)",
    ] {
        assert!(imported.text.contains(expected), "{expected}: {}", imported.text);
    }
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
    server s 10.0.0.1:1
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
fn a_file_without_tcp_sections_is_an_error() {
    let message = |origin, text| import(origin, text).unwrap_err().to_string();
    assert!(message(Origin::Haproxy, "").ends_with("a server that can be carried over"));
    assert!(message(Origin::Nginx, "http { }").starts_with("no TCP server in a `stream` block can be carried over:\n"));
}

#[test]
fn an_import_without_a_listener_lists_what_was_left_out() {
    let text = "
listen a
  mode tcp
  bind :443
  server loop 0.0.0.0:4443
";
    let message = import(Origin::Haproxy, text).unwrap_err().to_string();
    let why = "HAProxy connects to the address that the client has connected to: write it";
    assert!(
        message.contains(&format!("line 5: server loop 0.0.0.0:4443 ({why})")),
        "{message}"
    );
}

#[test]
fn the_last_kind_of_check_is_in_force() {
    let text = "
listen a
    mode tcp
    bind :1
    option mysql-check user u
    option redis-check
    server s1 127.0.0.1:2 check check-ssl verify required
";
    let lines = lines(Origin::Haproxy, text);
    assert_lines(&lines, &["check = \"redis\"", "tls = true"]);
    let is_foreign = |line: &String| line.starts_with("user") || line.starts_with("verify");
    assert!(!lines.iter().any(is_foreign), "{lines:#?}");
}

/// The lines of the first listener and its guard in a frontend with these lines.
fn haproxy_front(lines: &str) -> Vec<String> {
    let text = format!(
        "listen a\nmode tcp\nbind :1\nserver s 10.0.0.1:1\n{lines}\nbackend b\nmode tcp\nserver b 10.0.0.2:1\n"
    );
    self::lines(Origin::Haproxy, &text)
}

#[test]
fn accepting_rules_of_haproxy_are_kept() {
    for (rules, expected, absent) in [
        (
            "tcp-request connection accept if { src 10.0.0.1 }\ntcp-request connection reject if { src 10.0.0.0/30 }",
            &["deny = [\"10.0.0.2/31\", \"10.0.0.0\"]"][..],
            "# note",
        ),
        (
            "tcp-request connection reject if { src 10.0.0.0/30 } !{ src 10.0.0.1 } or { src ::1 }",
            &["deny = [\"10.0.0.2/31\", \"10.0.0.0\", \"::1\"]"],
            "# note",
        ),
        (
            "tcp-request connection reject unless { src 10.0.0.0/30 } !{ src 10.0.0.1 }",
            &["allow = [\"10.0.0.2/31\", \"10.0.0.0\"]"],
            "deny",
        ),
        (
            "tcp-request connection reject unless !{ src 10.0.0.0/8 192.0.2.1 }",
            &["deny = [\"10.0.0.0/8\", \"192.0.2.1\"]"],
            "allow",
        ),
        (
            "tcp-request connection accept unless { src 10.0.0.0/8 }\ntcp-request connection reject if { src 10.0.0.0/7 }",
            &["deny = \"10.0.0.0/8\""],
            "# n",
        ),
        (
            "use_backend b if { src 10.0.0.0/30 } !{ src 10.0.0.1 } { req.ssl_sni b.example }",
            &["from = [\"10.0.0.2/31\", \"10.0.0.0\"]", "sni = \"b.example\""],
            "# n",
        ),
        (
            "tcp-request connection accept if { src 10.1.2.3 }\n\
             tcp-request connection reject if { src 10.0.0.0/8 } { req.ssl_sni a.example }",
            &["# note, line 6: 10.1.2.3: accepted by an earlier line, but rejected here where both match"],
            "allow",
        ),
        (
            "tcp-request connection accept if { src 10.1.2.3 }\ntcp-request connection reject if { src 192.0.2.0/24 }",
            &["deny = \"192.0.2.0/24\""],
            "# note",
        ),
        (
            "tcp-request connection accept if { src 10.1.2.3 }\ntcp-request content reject if { src 10.0.0.0/8 }",
            &["deny = \"10.0.0.0/8\""],
            "# note",
        ),
        (
            "tcp-request connection accept if { src 10.1.2.3 }\ntcp-request connection reject unless { src 192.0.2.0/24 }",
            &["allow = [\"10.1.2.3\", \"192.0.2.0/24\"]"],
            "# note",
        ),
        (
            "tcp-request content accept if { src 10.1.2.3 }\ntcp-request content reject\ntcp-request content accept if { src 10.1.2.4 }",
            &[
                "allow = \"10.1.2.3\"",
                "# not carried over, line 7: tcp-request content accept if { src 10.1.2.4 } (an earlier line decides about all clients)",
            ],
            "# note",
        ),
        (
            "tcp-request content accept if { src 10.1.2.3 }\ntcp-request content accept if { req.ssl_sni a.example }\n\
             tcp-request content reject",
            &["# not carried over, line 7: tcp-request content reject (write routes for the clients that may pass)"],
            "allow",
        ),
        (
            "tcp-request content accept if { req.ssl_sni a.example }\ntcp-request content reject if { src 10.0.0.0/8 }",
            &[
                "deny = \"10.0.0.0/8\"",
                "# note, line 6: clients that an earlier line accepts are rejected here, too",
            ],
            "allow",
        ),
        (
            "tcp-request connection reject unless { src 10.0.0.0/8 }\ntcp-request content accept if { src 192.0.2.1 }\n\
             tcp-request content reject",
            &[
                "allow = \"10.0.0.0/8\"",
                "# not carried over, line 7: tcp-request content reject (another rule says already who may pass)",
            ],
            "# note",
        ),
        (
            "tcp-request connection accept\ntcp-request connection reject if { src 10.0.0.0/8 }",
            &[
                "# not carried over, line 6: tcp-request connection reject if { src 10.0.0.0/8 } (an earlier line decides about all clients)",
            ],
            "deny",
        ),
    ] {
        let lines = haproxy_front(rules);
        assert_lines(&lines, expected);
        assert!(
            !lines.iter().any(|line| line.starts_with(absent)),
            "{rules}: {lines:#?}"
        );
    }
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
        assert!(
            !lines.iter().any(|line| line.starts_with(absent)),
            "{rules}: {lines:#?}"
        );
    }
}

#[test]
fn an_unconditional_use_backend_comes_before_the_default() {
    for rules in [
        "use_backend b\ndefault_backend a",
        "default_backend a\nuse_backend b if TRUE",
        "use_backend b\nuse_backend a if { req.ssl_sni a.example }",
    ] {
        let lines = haproxy_front(rules);
        assert_lines(&lines, &["pool = \"b\""]);
        assert!(!lines.contains(&String::from("pool = \"a\"")), "{lines:#?}");
    }
    let lines = haproxy_front("use_backend a if { req.ssl_sni a.example }\nuse_backend b\nuse_backend a");
    let left_out = "# not carried over, line 7: use_backend a (an earlier use_backend takes all clients)";
    assert_lines(
        &lines,
        &["sni = \"a.example\"", "pool = \"a\"", "pool = \"b\"", left_out],
    );
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
        let mut listeners = Vec::new();
        for line in &lines {
            if let Some(bind) = line.strip_prefix("bind = ") {
                listeners.push((bind, false, false));
            }
            if let Some((_, is_proxied, has_tls)) = listeners.last_mut() {
                *is_proxied |= line.starts_with("accept_proxy = ");
                *has_tls |= line.starts_with("certificates = ");
            }
        }
        let expected = [
            ("\"0.0.0.0:1\"", true, true),
            ("\"0.0.0.0:2\"", false, true),
            ("\"0.0.0.0:4\"", true, false),
            ("\"0.0.0.0:3\"", false, false),
        ];
        assert_eq!(listeners, expected, "{lines:#?}");
        for suffix in ["-direct]", "-plain]", "-plain-direct]"] {
            assert!(lines.iter().any(|line| line.ends_with(suffix)), "{suffix}: {lines:#?}");
        }
    }
}

#[test]
fn settings_of_some_haproxy_addresses_are_noted() {
    let text = "
listen a
    mode tcp
    bind :1 ssl crt /a.pem verify required ca-file /ca.pem
    bind :2 ssl crt /a.pem
    bind :3 accept-proxy ssl crt /a.pem verify required ca-file /ca.pem
    tcp-request connection expect-proxy layer4 if { src 10.0.0.9 }
    server s 10.0.0.1:1
";
    assert_lines(
        &lines(Origin::Haproxy, text),
        &[
            "# note, line 5: client_auth holds for all addresses of the listener with TLS: give others a listener of their own",
            "# note, line 7: only the peers of expect-proxy are believed, also at addresses with accept-proxy",
            "accept_proxy = { from = \"10.0.0.9\" }",
            "client_auth = { ca_file = \"/ca.pem\", mode = \"require\" }",
        ],
    );
}

/// Words that make a difference, in any order.
fn file(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![8 => proptest::sample::select(words).prop_map(String::from), 1 => ".{0,12}"];
    proptest::collection::vec(word, 0..80).prop_map(|words| words.join(" "))
}

const HAPROXY: &[&str] = &[
    "\n",
    "\n",
    "\n",
    "\n",
    "listen a\n",
    "frontend b\n",
    "backend c\n",
    "defaults\n",
    "global\n",
    "mode tcp\n",
    "mode http\n",
    "bind :1",
    "bind *:2",
    "bind 127.0.0.1:3 ssl crt /a.pem",
    "verify required ca-file x",
    "accept-proxy",
    "server s1 127.0.0.1:1 check",
    "server s2 10.0.0.1:5",
    "server s2 db:5",
    "weight 0",
    "backup",
    "inter 0",
    "check-ssl",
    "default_backend c\n",
    "default_backend a\n",
    "use_backend c if",
    "use_backend c unless",
    "{",
    "}",
    "req.ssl_sni",
    "-m end",
    "a.example",
    ".a.example",
    "!x",
    "or",
    "acl x",
    "src 10.0.0.1/8",
    "tcp-request content reject if",
    "tcp-request connection reject",
    "tcp-request connection accept if",
    "tcp-request connection accept\n",
    "tcp-request content reject\n",
    "use_backend c\n",
    "bind :4 accept-proxy",
    "tcp-request connection expect-proxy layer4 if",
    "balance source\n",
    "bind /run/a.sock mode 660",
    "server s3 unix@/run/b.sock check",
    "ssl",
    "sni str(a.example)",
    "sni req.ssl_sni",
    "verify none",
    "check-sni a.example",
    "crt /a.pem",
    "agent-check",
    "agent-port 9",
    "agent-send",
    "addr 10.0.0.9",
    "source 10.0.0.1:0",
    "source ::1",
    "source 0.0.0.0 usesrc client",
    "maxconn 9",
    "timeout queue 1s\n",
    "option httpchk",
    "GET",
    "/x",
    "http-check expect",
    "http-check send meth",
    "hdr a b",
    "hdr Host a",
    "status 200",
    "rstatus ^[23]",
    "option tcp-check\n",
    "option smtpchk\n",
    "tcp-check connect ssl port 1",
    "tcp-check send",
    "tcp-check send-binary 0a",
    "tcp-check expect",
    "string a\\r",
    "rstring ^a",
    "binary 0aff",
    "!",
    "option mysql-check user u\n",
    "option pgsql-check\n",
    "option redis-check\n",
    "tcp-check expect string role:master\n",
    "timeout client 0\n",
    "timeout tunnel 99999999d\n",
    "timeout connect 5\n",
    "maxconn 0\n",
    "default-server check fall 0\n",
    "port 0",
    "resolve-prefer ipv6",
    "send-proxy",
    "slowstart 0",
    "on-marked-up shutdown-backup-sessions",
    "alpn",
    "h2,h2",
    "\"",
    "\\",
    "#",
];

const NGINX: &[&str] = &[
    "stream {",
    "server {",
    "upstream a {",
    "map $ssl_preread_server_name $x {",
    "map $ssl_preread_alpn_protocols $x {",
    "}",
    "}",
    "}",
    ";",
    ";",
    "listen 1;",
    "listen [::]:2 ipv6only=off proxy_protocol;",
    "listen 3 ssl backlog=0;",
    "listen 5 ssl proxy_protocol;",
    "listen 4 udp;",
    "proxy_pass a;",
    "proxy_pass $x;",
    "proxy_pass 127.0.0.1:1;",
    "proxy_pass $x:1;",
    "server 10.0.0.1:1 weight=0 max_fails=0 fail_timeout=0;",
    "server 10.0.0.1:2 down backup;",
    "server 127.0.0.1:1;",
    "hostnames;",
    ".a.example a;",
    "*.a.example a;",
    "b.example 10.0.0.1:1;",
    "h2 a;",
    "default a;",
    "allow 10.0.0.1/8;",
    "deny all;",
    "deny 10.0.0.0/8;",
    "allow all;",
    "proxy_timeout 0;",
    "proxy_connect_timeout 99y;",
    "proxy_protocol on;",
    "set_real_ip_from 10.0.0.1/8;",
    "ssl_certificate /a.pem;",
    "ssl_certificate_key /a.key;",
    "ssl_alpn h2 h2;",
    "ssl_protocols TLSv1.3;",
    "ssl_verify_client on;",
    "ssl_verify_client optional;",
    "ssl_client_certificate /ca.pem;",
    "ssl_crl \"\";",
    "limit_conn_zone $remote_addr zone=z:1m;",
    "limit_conn z 5;",
    "limit_conn_dry_run on;",
    "proxy_download_rate 999999999999g;",
    "proxy_upload_rate 1;",
    "proxy_next_upstream_tries 0;",
    "server unix:/run/a.sock max_conns=5;",
    "listen unix:/run/b.sock;",
    "proxy_pass unix:/run/c.sock;",
    "proxy_ssl on;",
    "proxy_ssl_verify on;",
    "proxy_ssl_name a.example;",
    "proxy_ssl_certificate_key /a.key;",
    "proxy_bind 10.0.0.1;",
    "proxy_bind ::1;",
    "proxy_bind $remote_addr transparent;",
    "\"",
    "'",
    "#",
    "\n",
    "$",
];

proptest! {
    #[test]
    fn any_haproxy_file_becomes_a_valid_configuration(text in file(HAPROXY)) {
        drop(checked(Origin::Haproxy, &text));
    }

    #[test]
    fn any_nginx_file_becomes_a_valid_configuration(text in file(NGINX)) {
        drop(checked(Origin::Nginx, &text));
    }

    #[test]
    fn any_text_is_imported_without_a_panic(text in "(?s).{0,400}") {
        drop(checked(Origin::Haproxy, &text));
        drop(checked(Origin::Nginx, &text));
    }
}

#[test]
fn repeated_names_are_numbered_in_order() {
    let listener = |port: u32| format!("listen a\n  mode tcp\n  bind :{port}\n  server s 10.0.0.1:1\n");
    let text: String = (1..=100).map(listener).collect();
    let imported = import(
        Origin::Haproxy,
        &format!("{text}{}", listener(101).replace("listen a", "listen a-2")),
    );
    let text = imported.unwrap().text;
    for name in ["a", "a-2", "a-100", "a-2-2"] {
        assert!(text.contains(&format!("\n[listeners.{name}]\n")), "{name}");
    }
}

#[test]
fn every_name_becomes_a_valid_one() {
    let long = "é".repeat(64);
    let listener =
        |(port, name): (usize, &&str)| format!("listen {name}\n mode tcp\n bind :{port}\n server {name} 10.0.0.1:1\n");
    for names in [[".", ".."], ["a/b", "a@b"], [&long, &long], [&long, &long[..126]]] {
        let text: String = names
            .iter()
            .enumerate()
            .map(|(at, name)| listener((at + 1, name)))
            .collect();
        checked(Origin::Haproxy, &text).unwrap();
    }
}
