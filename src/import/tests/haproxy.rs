//! Files of HAProxy.

use super::*;

#[test]
fn haproxy_routes_by_server_name_are_imported() {
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
# note, line 27: proxy_protocol of 10.0.1.2:443 is v2, as for the first server
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
    let lines = imported.text.lines().filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.skip(3).collect(); // without the heading
    assert_eq!(lines, expected.trim().lines().collect::<Vec<_>>());
}

#[test]
fn haproxy_alternatives_with_an_unsupported_test_are_left_out() {
    let text = "
listen a
    mode tcp
    bind :1
    tcp-request content reject if { req.ssl_hello_type 0 }
    use_backend b if { req.len 0 }
    use_backend c if { req.ssl_ver gt 3 }
    use_backend d if { hdr(host) x } or { req.ssl_hello_type 1 }
    server s 10.0.0.1:1
backend d
    mode tcp
    server s 10.0.0.4:1
";
    let lines = lines(Origin::Haproxy, text);
    let left_out = lines
        .iter()
        .filter(|line| line.starts_with("# not carried over, line "))
        .count();
    assert_eq!(left_out, 4, "{lines:#?}");
    let is_route = |line: &&String| line.starts_with("[[") || line.starts_with("refuse");
    assert_eq!(lines.iter().filter(is_route).count(), 1, "{lines:#?}");
    assert_lines(&lines, &["pool = \"a\"", "sni = \"*\"", "pool = \"d\""]);
}

#[test]
fn the_last_option_of_haproxy_chooses_the_check() {
    let checked_by = |lines: &str| {
        let text = format!(
            "defaults\n mode tcp\n option httpchk GET /x\nlisten a\n bind :1\n {lines}\n server s 10.0.0.1:1 check\n"
        );
        let lines = self::lines(Origin::Haproxy, &text);
        lines
            .into_iter()
            .skip_while(|line| line != "[pools.a.health]")
            .skip(1)
            .collect::<Vec<_>>()
    };
    assert_eq!(checked_by("option tcp-check"), [""; 0]);
    let hello = ["check = \"send-expect\"", "steps = [{ expect = \"hello\" }]"];
    let rule = "option tcp-check\n tcp-check expect string hello";
    assert_eq!(checked_by(&format!("option pgsql-check user x\n {rule}")), hello);
    assert_eq!(checked_by(&format!("{rule}\n option tcp-check")), hello);
    assert_eq!(
        checked_by("option tcp-check\n option ssl-hello-chk"),
        ["check = \"tls\""]
    );
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
    let imported = checked(Origin::Haproxy, text).unwrap();
    assert_eq!(imported.left_out, 1, "{}", imported.text);
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
            "# note, line 20: bind_source of 10.0.1.3:5432 is 10.0.0.5, as for the first server, instead of client",
            "  { address = \"10.0.1.1:5432\", name = \"a\", max_sessions = 90 },",
            "  { address = \"unix:/run/b.sock\", name = \"b\", max_sessions = 40 },",
            "  { address = \"10.0.1.3:5432\", name = \"c\" },",
        ],
    );
    assert_no_line(&lines, |line| line.starts_with("verify"));
}

#[test]
fn haproxy_tls_with_servers_is_kept_unless_a_route_by_name_passes_the_tls_of_clients_on() {
    let text = "
listen a
    mode tcp
    bind :1
    use_backend b if { req.ssl_sni b.example }
    server a 10.0.0.1:1 ssl verify none sni req.ssl_sni,lower maxconn 9 check check-ssl
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
            "# not carried over: TLS with the servers (routes by server name or protocol pass the TLS of clients on to this pool)",
        ],
    );
    assert_no_line(&lines, |line| line == "[pools.b.tls]");
}

#[test]
fn haproxy_check_kinds_are_imported() {
    let section_start = "listen a\nmode tcp\nbind :1\nserver a 10.0.0.1:80";
    for (section_rest, expected) in [
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
            "check\n option httpchk GET /up HTTP/1.1 a.example",
            &["check = \"http\"", "path = \"/up\"", "host = \"a.example\""],
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
                "steps = [{ expect = \"^220\" }, { send = \"HELO localhost\\r\\n\", expect = \"(?m)^250\" }, { send = \"QUIT\\r\\n\" }]",
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
        // The `haproxy.cfg` of Patroni 0.4 and older.
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
        let lines = lines(Origin::Haproxy, &format!("{section_start} {section_rest}\n"));
        assert_lines(&lines, expected);
        assert_no_line(&lines, |line| line.contains("secret"));
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
fn a_haproxy_address_that_verifies_clients_is_left_out_if_its_certificates_cannot_be_kept() {
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
frontend other
    bind 192.0.2.1:3
    default_backend loop
backend loop
    server self 127.0.0.1:1
    server local localhost:1
    server no-listener localhost:3
    server one 127.0.0.1:9
    server two 127.0.0.1:9
backend empty
    server socket abns@a
";
    let imported = checked(Origin::Haproxy, text).unwrap();
    for expected in [
        "address 0.0.0.0:1 (it is bound already)",
        "server 127.0.0.1:1 (it is the listener itself)",
        "server localhost:1 (it is the listener itself)",
        "server 127.0.0.1:9 (it is in this pool already)",
        "route to pool missing (there is no such pool)",
        "pool empty (no server is left)",
        "listener b (no pool is left)",
    ] {
        assert!(imported.text.contains(expected), "{expected}: {}", imported.text);
    }
    assert!(!imported.text.contains("localhost:3 ("), "{}", imported.text);
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
fn settings_that_the_last_kind_of_check_does_not_have_are_dropped() {
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
    assert_no_line(&lines, |line| line.starts_with("user") || line.starts_with("verify"));
}

#[test]
fn a_haproxy_file_whose_last_line_is_cut_off_is_an_error() {
    let cut = "listen a\n mode tcp\n bind :1\n server s 10.0.0.1:8";
    for text in [String::from(cut), cut.replace('\n', "\r\n")] {
        let error = import(Origin::Haproxy, &text).unwrap_err().to_string();
        assert!(error.starts_with("line 4: the last line has no line feed"), "{error}");
        for end in ["\n", "\r\n", "\n ", "\n\n"] {
            let whole = checked(Origin::Haproxy, &format!("{text}{end}")).unwrap().text;
            assert!(whole.contains("10.0.0.1:8\""), "{whole}");
        }
    }
}

/// The lines of the result for a `listen` section `a` that ends with these rules, and a backend `b`.
fn lines_with_rules(rules: &str) -> Vec<String> {
    let text = format!(
        "listen a\nmode tcp\nbind :1\nserver s 10.0.0.1:1\n{rules}\nbackend b\nmode tcp\nserver b 10.0.0.2:1\n"
    );
    lines(Origin::Haproxy, &text)
}

#[test]
fn accepting_and_rejecting_rules_of_haproxy_are_combined() {
    // No line begins with `absent`. Where it is `# n`, there is neither a note nor a line that is not carried over.
    for (rules, expected, absent) in [
        (
            "tcp-request connection accept if { src 10.0.0.1 }\ntcp-request connection reject if { src 10.0.0.0/30 }",
            &["deny = [\"10.0.0.2/31\", \"10.0.0.0\"]"][..],
            "# note",
        ),
        (
            "tcp-request content accept unless { src 10.0.0.0/8 } or { req.ssl_sni a.example }\n\
             tcp-request content reject if { src 10.0.0.0/8 }",
            &[
                "deny = \"10.0.0.0/8\"",
                "# note, line 6: clients that an earlier line accepts are rejected here, too",
            ],
            "allow",
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
            &["# note, line 6: 10.1.2.3: accepted by an earlier line, but rejected here where both lines match"],
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
            "tcp-request content accept if { req.ssl_sni a.example }\n\
             tcp-request content reject if { req.ssl_sni -m end example } or { hdr(host) x }",
            &[
                "# note, line 6: clients that an earlier line accepts are rejected here, too",
                "refuse = true",
            ],
            "allow",
        ),
        (
            "tcp-request connection reject unless { src 10.0.0.0/8 }\ntcp-request content accept if { src 192.0.2.1 }\n\
             tcp-request content reject",
            &[
                "allow = \"10.0.0.0/8\"",
                "# not carried over, line 7: tcp-request content reject (another rule already says who may pass)",
            ],
            "# note",
        ),
        (
            "tcp-request content accept if { src 10.0.0.0/30 } !{ src 10.0.0.1 } or { req.ssl_sni a.example }\n\
             tcp-request content reject if { req.ssl_sni a.example b.example }",
            &["sni = \"b.example\"", "refuse = true"],
            "# not carried",
        ),
        (
            "tcp-request connection accept\ntcp-request connection reject if { src 10.0.0.0/8 }",
            &[
                "# not carried over, line 6: tcp-request connection reject if { src 10.0.0.0/8 } (an earlier line decides about all clients)",
            ],
            "deny",
        ),
    ] {
        let lines = lines_with_rules(rules);
        assert_lines(&lines, expected);
        assert_no_line(&lines, |line| line.starts_with(absent));
    }
}

#[test]
fn haproxy_suffixes_without_a_dot_are_noted() {
    let note =
        "# note, line 5: a longer name that ends with the value, but has no dot before that value, does not match";
    for rule in ["use_backend b", "tcp-request content reject"] {
        let lines = lines_with_rules(&format!("{rule} if {{ req.ssl_sni -m end a.example }}"));
        assert_lines(&lines, &["sni = [\"a.example\", \"*.a.example\"]", note]);
        let lines = lines_with_rules(&format!("{rule} if {{ req.ssl_sni -m end .a.example }}"));
        assert_no_line(&lines, |line| line.contains("note"));
    }
}

#[test]
fn an_unconditional_use_backend_wins_over_later_rules_and_the_default() {
    for rules in [
        "use_backend b\ndefault_backend a",
        "default_backend a\nuse_backend b if TRUE",
        "use_backend b\nuse_backend a if { req.ssl_sni a.example }",
    ] {
        let lines = lines_with_rules(rules);
        assert_lines(&lines, &["pool = \"b\""]);
        assert_no_line(&lines, |line| line == "pool = \"a\"");
    }
    // An `or` without a test after it adds no alternative: the rule stays conditional.
    let lines = lines_with_rules("use_backend b if { req.ssl_sni b.example } or");
    assert_lines(&lines, &["sni = \"b.example\"", "pool = \"b\"", "pool = \"a\""]);
    let lines = lines_with_rules("use_backend a if { req.ssl_sni a.example }\nuse_backend b\nuse_backend a");
    let left_out = "# not carried over, line 7: use_backend a (an earlier use_backend takes all clients)";
    assert_lines(
        &lines,
        &["sni = \"a.example\"", "pool = \"a\"", "pool = \"b\"", left_out],
    );
}

#[test]
fn expect_proxy_beside_accept_proxy_is_noted() {
    let text = "
listen a
    mode tcp
    bind :1
    bind :3 accept-proxy
    tcp-request connection expect-proxy layer4 if { src 10.0.0.9 }
    server s 10.0.0.1:1
";
    assert_lines(
        &lines(Origin::Haproxy, text),
        &[
            "# note, line 6: only the peers of expect-proxy are believed, also at addresses with accept-proxy",
            "accept_proxy = { from = \"10.0.0.9\" }",
        ],
    );
}

#[test]
fn the_peers_of_each_expect_proxy_are_believed_but_not_those_of_a_negation() {
    let listen = |rules: &str| {
        let text = format!("listen a\n  mode tcp\n  bind :1\n{rules}\n  server s 10.0.0.1:1\n");
        lines(Origin::Haproxy, &text)
    };
    let rule =
        |how: &str, network: &str| format!("  tcp-request connection expect-proxy layer4 {how} {{ src {network} }}\n");
    let both = listen(&[rule("if", "10.0.0.8"), rule("if", "10.0.0.9"), rule("if", "10.0.0.8")].concat());
    assert_lines(&both, &["accept_proxy = { from = [\"10.0.0.8\", \"10.0.0.9\"] }"]);
    let negated = listen(&rule("unless", "10.0.0.0/8"));
    assert_no_line(&negated, |line| line.starts_with("accept_proxy"));
    let is_reported = |line: &String| line.contains("not carried over, line 4") && line.contains("write accept_proxy");
    assert!(negated.iter().any(is_reported), "{negated:#?}");
}

/// The lines of the result for a section with these `tcp-check` rules.
fn lines_with_tcp_checks(rules: &str) -> Vec<String> {
    let rules: String = rules.lines().map(|rule| format!("  tcp-check {rule}\n")).collect();
    let text = format!("listen a\n  mode tcp\n  bind :1\n  option tcp-check\n{rules}  server s 10.0.0.1:1 check\n");
    lines(Origin::Haproxy, &text)
}

/// The number of lines that contain a text.
fn count_with(text: &str, lines: &[String]) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn a_haproxy_conversation_keeps_to_one_connection() {
    let two = lines_with_tcp_checks("connect port 110\nexpect string +OK\nconnect port 143\nexpect string *\\ OK");
    assert_lines(&two, &["port = 110", "steps = [{ expect = '\\+OK' }]"]);
    assert_eq!(count_with("a check uses one connection", &two), 2, "{two:#?}");
    let port_only = lines_with_tcp_checks("connect port 443");
    assert_lines(&port_only, &["port = 443"]);
    let last = lines_with_tcp_checks("connect port 80\nconnect port 443 ssl");
    assert_lines(&last, &["port = 443"]);
    assert_eq!(
        count_with("the connection of an earlier line is not checked", &last),
        1,
        "{last:#?}"
    );
}

#[test]
fn the_steps_of_a_haproxy_conversation_are_imported_or_reported() {
    let anchored = lines_with_tcp_checks("expect rstring ^220\nsend QUIT\\r\\n\nexpect rstring ^221");
    assert_lines(
        &anchored,
        &["steps = [{ expect = \"^220\" }, { send = \"QUIT\\r\\n\", expect = \"(?m)^221\" }]"],
    );
    let two_expects = lines_with_tcp_checks("expect string b\nexpect string a");
    assert_eq!(count_with("searches behind the match", &two_expects), 1);
    let invalid = lines_with_tcp_checks("send hex:zz");
    assert_eq!(count_with("not carried over", &invalid), 1);
}

#[test]
fn a_value_of_a_haproxy_server_option_is_not_read_as_an_option() {
    let lines = lines(
        Origin::Haproxy,
        "listen a\n mode tcp\n bind :1\n server s1 10.0.0.1:1\n server s2 10.0.0.2:1 check hash-key addr backup\n",
    );
    assert_lines(
        &lines,
        &[
            "# not carried over, line 5: hash-key addr",
            "  { address = \"10.0.0.2:1\", name = \"s2\", priority = 1 },",
        ],
    );
}

#[test]
fn a_haproxy_server_can_switch_off_a_flag_of_default_server() {
    let text = "
listen a
    mode tcp
    bind :1
    default-server send-proxy
    server s 10.0.0.1:1 no-send-proxy
";
    let lines = lines(Origin::Haproxy, text);
    assert_no_line(&lines, |line| line.starts_with("proxy_protocol"));
}

#[test]
fn rejections_come_before_the_routes_to_backends() {
    let lines = lines_with_rules(
        "use_backend a if { req.ssl_sni a.example }\ntcp-request content reject if { req.ssl_sni a.example b.example }",
    );
    let refusing = lines.iter().position(|line| line == "refuse = true");
    let serving = lines.iter().rposition(|line| line == "pool = \"a\"");
    assert!(refusing.unwrap() < serving.unwrap(), "{lines:#?}");
    let lines = lines_with_rules(
        "use_backend a if { req.ssl_sni www.example }\ntcp-request content reject if { req.ssl_sni -m end .example }",
    );
    assert_lines(
        &lines,
        &["sni = [\"*.example\", \"www.example\"]", "sni = \"www.example\""],
    );
}

#[test]
fn the_lines_that_a_long_chain_of_defaults_passes_on_are_limited() {
    let mut text = String::from("defaults d0\n  timeout client 7s\n");
    for number in 1..1000 {
        text += &format!("defaults d{number} from d{}\n  timeout client {number}s\n", number - 1);
    }
    text += "frontend f from d999\n  mode tcp\n  bind :1\n  default_backend s\nbackend s\n  mode tcp\n  server s 10.0.0.1:1\n";
    let lines = lines(Origin::Haproxy, &text);
    let is_told = |line: &String| line.contains("too many inherited lines");
    assert!(lines.iter().any(is_told), "{lines:#?}");
    assert_lines(&lines, &["idle_timeout = \"999s\""]);
}

#[test]
fn a_hard_stop_after_0_sets_nothing() {
    let text = "global\n  hard-stop-after 0\nlisten a\n  mode tcp\n  bind :1\n  server s 10.0.0.1:1\n";
    let imported = lines(Origin::Haproxy, text);
    assert_no_line(&imported, |line| line.starts_with("drain_timeout"));
}

#[test]
fn defaults_inherit_from_other_defaults() {
    let text = "
defaults a
    timeout client 7s
defaults b from a
    mode tcp
frontend f from b
    bind :1
    default_backend s
backend s
    mode tcp
    server s 10.0.0.1:1
";
    assert_lines(&lines(Origin::Haproxy, text), &["idle_timeout = \"7s\""]);
}

#[test]
fn an_unknown_name_of_defaults_is_reported() {
    let text = "
defaults a from none
    mode tcp
    timeout client 7s
frontend f from other
    bind :1
    default_backend s
backend s from a
    server s 10.0.0.1:1
";
    let unknown = "no `defaults` before this line has this name";
    assert_lines(
        &lines(Origin::Haproxy, text),
        &[
            &format!("# not carried over, line 2: from none ({unknown})"),
            &format!("# not carried over, line 5: from other ({unknown}: the last one is used)"),
            "idle_timeout = \"7s\"",
        ],
    );
}

#[test]
fn inherited_lines_are_read_together_whichever_defaults_section_has_them() {
    let text = "
defaults a
    mode tcp
    option httpchk GET /x
defaults b from a
    http-check expect status 204
    tcp-check expect string a
listen l from b
    bind :1
    server s 10.0.0.1:1 check
";
    let lines = lines(Origin::Haproxy, text);
    let remarks: Vec<_> = lines.iter().filter(|line| line.starts_with('#')).collect();
    let remark = "# not carried over, line 7: tcp-check expect string a (another option selects the kind of check)";
    assert_eq!(remarks, [remark]);
    assert_lines(&lines, &["expect = \"204\""]);
}

#[test]
fn haproxy_addresses_with_different_settings_of_tls_become_separate_listeners() {
    let text = "
listen a
    mode tcp
    bind :1 ssl crt /a.pem verify required ca-file /ca.pem
    bind :2 ssl crt /a.pem verify required ca-file /other.pem alpn h2,h2
    bind :3 ssl crt /a.pem
    bind :4 ssl crt /a.pem verify required ca-file /ca.pem
    bind :5 ssl crt /a.pem verify optional ca-file /ca.pem ssl-min-ver TLSv1.3
    bind :6 ssl crt /b.pem crt /a.pem
    bind :7 crt /b.pem
    bind :8 ssl crt /b.pem crt /a.pem crt /b.pem
    server s 10.0.0.1:1
";
    let lines = lines(Origin::Haproxy, text);
    let shown = ["bind", "certificates", "alpn", "client_auth", "min_version"];
    let is_shown = |line: &&String| shown.iter().any(|key| line.starts_with(&format!("{key} = ")));
    let found: Vec<_> = lines.iter().filter(is_shown).map(String::as_str).collect();
    let a = "certificates = [{ cert = \"/a.pem\" }]";
    let expected = [
        "bind = \"0.0.0.0:3\"",
        a,
        "bind = \"0.0.0.0:2\"",
        a,
        "alpn = \"h2\"",
        "client_auth = { ca_file = \"/other.pem\", mode = \"require\" }",
        "bind = \"0.0.0.0:5\"",
        a,
        "client_auth = { ca_file = \"/ca.pem\", mode = \"request\" }",
        "min_version = \"1.3\"",
        "bind = [\"0.0.0.0:1\", \"0.0.0.0:4\"]",
        a,
        "client_auth = { ca_file = \"/ca.pem\", mode = \"require\" }",
        "bind = [\"0.0.0.0:6\", \"0.0.0.0:8\"]",
        "certificates = [{ cert = \"/b.pem\" }, { cert = \"/a.pem\" }]",
        "bind = \"0.0.0.0:7\"",
    ];
    assert_eq!(found, expected, "{lines:#?}");
}

#[test]
fn the_ipv6_wildcard_also_stands_for_ipv4_unless_it_is_v6only_or_another_line_binds_that() {
    let binds = |binds: &[&str]| {
        let listen = |(number, bind): (usize, &&str)| {
            format!("listen l{number}\n mode tcp\n bind {bind}\n server s 10.0.0.1:1\n")
        };
        let text: String = binds.iter().enumerate().map(listen).collect();
        let lines = lines(Origin::Haproxy, &text);
        assert_no_line(&lines, |line| line.starts_with("# not"));
        let binds = lines.iter().filter_map(|line| line.strip_prefix("bind = "));
        binds.map(|bind| bind.replace('"', "")).collect::<Vec<_>>()
    };
    let both = ["[0.0.0.0:1, [::]:1]"];
    assert_eq!(binds(&[":::1"]), both);
    assert_eq!(binds(&["[::]:1 v4v6"]), both);
    assert_eq!(binds(&["ipv6@:1"]), both);
    assert_eq!(binds(&[":::1 v4v6 v6only"]), ["[::]:1"]);
    assert_eq!(binds(&["*:1 v4v6"]), ["0.0.0.0:1"], "`v4v6` is for addresses of IPv6");
    assert_eq!(binds(&[":::1", "*:1"]), ["[::]:1", "0.0.0.0:1"]);
    assert_eq!(
        binds(&[":::1 ssl crt /a.pem alpn h2"]),
        both,
        "both have the same settings"
    );
}

#[test]
fn rules_of_haproxy_checks_replace_inherited_ones() {
    let health = |defaults: &str, section: &str| {
        let text =
            format!("defaults\n mode tcp\n {defaults}\nlisten a\n bind :1\n {section}\n server s 10.0.0.1:1 check\n");
        let lines = lines(Origin::Haproxy, &text);
        assert_no_line(&lines, |line| line.starts_with('#'));
        let health = lines.into_iter().skip_while(|line| line != "[pools.a.health]");
        health.skip(1).collect::<Vec<_>>()
    };
    let defaults = "option tcp-check\n tcp-check connect port 9\n tcp-check expect string a";
    assert_eq!(
        health(defaults, ""),
        ["check = \"send-expect\"", "steps = [{ expect = \"a\" }]", "port = 9"]
    );
    assert_eq!(
        health(defaults, "tcp-check expect string b"),
        ["check = \"send-expect\"", "steps = [{ expect = \"b\" }]"]
    );
    let defaults = "option httpchk GET /x\n http-check expect status 204";
    assert_eq!(
        health(defaults, "http-check expect string b"),
        [
            "check = \"http\"",
            "path = \"/x\"",
            "expect = \"100-599\"",
            "body = \"b\""
        ]
    );
    assert_eq!(
        health(defaults, "option httpchk GET /y"),
        ["check = \"http\"", "path = \"/y\""]
    );
    let (health, remarks) = health_and_remarks("option httpchk\n option external-check\n server s 10.0.0.1:1 check");
    assert!(health.is_empty() && remarks.len() == 1, "{health:?} {remarks:?}");
    let (health, _) = health_and_remarks(
        "option spop-check\n option tcp-check\n tcp-check expect string a\n server s 10.0.0.1:1 check",
    );
    assert_eq!(health, ["check = \"send-expect\"", "steps = [{ expect = \"a\" }]"]);
}

#[test]
fn source_httpchk_and_global_of_haproxy_may_stand_after_the_lines_that_they_affect() {
    let text = "
listen a
    mode tcp
    bind :1
    server s 10.0.0.1:1 check
    server t 10.0.0.2:1 check source 10.0.0.6
    http-check expect status 204
    option httpchk GET /up
    source 10.0.0.5
backend b
    mode tcp
    server s 10.0.0.3:1 ssl
global
    ssl-server-verify none
";
    let lines = lines(Origin::Haproxy, text);
    assert_lines(
        &lines,
        &[
            "bind_source = \"10.0.0.5\"",
            "path = \"/up\"",
            "expect = \"204\"",
            "verify = false",
            "# note, line 6: bind_source of 10.0.0.2:1 is 10.0.0.5, as for the first server, instead of 10.0.0.6",
        ],
    );
    assert_no_line(&lines, |line| line.starts_with("# not carried"));
}

#[test]
fn checks_of_haproxy_whose_proxy_header_differs_from_that_of_sessions_are_noted() {
    let remarks =
        |server: &str, option: &str| health_and_remarks(&format!("{option}\n server s 10.0.0.1:1 {server}")).1;
    assert_eq!(
        remarks("check check-send-proxy", ""),
        ["# not carried over: PROXY headers of checks (checks send a PROXY header only if sessions do)"]
    );
    assert!(remarks("check check-send-proxy send-proxy port 9", "option ssl-hello-chk").is_empty());
    assert!(
        remarks("check send-proxy port 9", "").is_empty(),
        "a connect sends no header"
    );
    assert!(remarks("check-send-proxy", "").is_empty(), "it has no checks");
    assert_eq!(
        remarks("check send-proxy port 9", "option ssl-hello-chk"),
        ["# note: checks send a PROXY header, as sessions do; those of HAProxy send none"]
    );
    // A `connect` without `default` says by itself how the check connects.
    let connect = |options: &str| format!("option tcp-check\n tcp-check connect {options}\n tcp-check expect string a");
    assert_eq!(
        remarks("check", &connect("send-proxy")),
        ["# not carried over: PROXY headers of checks (checks send a PROXY header only if sessions do)"]
    );
    assert!(remarks("check send-proxy", &connect("default")).is_empty());
    assert!(remarks("check send-proxy", &connect("send-proxy")).is_empty());
    assert_eq!(
        remarks("check send-proxy", &connect("")),
        ["# note: checks send a PROXY header, as sessions do; those of HAProxy send none"]
    );
}

#[test]
fn repeated_names_are_numbered_in_order() {
    let listener = |port: u32| format!("listen a\n  mode tcp\n  bind :{port}\n  server s 10.0.0.1:1\n");
    let text: String = (1..=100).map(listener).collect();
    let imported = import(
        Origin::Haproxy,
        &format!("{text}{}", listener(101).replace("listen a", "listen a-2")),
    );
    let imported = imported.unwrap().text;
    for name in ["a", "a-2", "a-100", "a-2-2"] {
        assert!(imported.contains(&format!("\n[listeners.{name}]\n")), "{name}");
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

/// The lines of `[pools.a.health]`, and all remarks, for a section with these lines.
fn health_and_remarks(section: &str) -> (Vec<String>, Vec<String>) {
    let lines = lines(Origin::Haproxy, &format!("listen a\n mode tcp\n bind :1\n {section}\n"));
    let is_remark = |line: &&String| line.starts_with('#');
    let remarks: Vec<String> = lines.iter().filter(is_remark).cloned().collect();
    let health = lines.into_iter().skip_while(|line| line != "[pools.a.health]").skip(1);
    (health.filter(|line| !line.starts_with('#')).collect(), remarks)
}

#[test]
fn the_connection_of_a_haproxy_check_is_that_of_its_connect_line() {
    for (section, health, remarks) in [
        // The port of `connect` is used, not that of the server. Without `default`, `ssl` of the server is not used.
        (
            "option tcp-check\n tcp-check connect port 26\n server s 10.0.0.1:1 check ssl verify none port 25\n \
             server t 10.0.0.2:1 check ssl verify none port 27",
            &["port = 26"][..],
            &[][..],
        ),
        (
            "option tcp-check\n tcp-check connect default\n server s 10.0.0.1:1 check ssl verify none",
            &["check = \"tls\""],
            &[],
        ),
        // The name of `connect` is used; if it has none, but `default`, that of the server.
        (
            "option tcp-check\n tcp-check connect default sni a.example\n \
             server s 10.0.0.1:1 check ssl verify none check-sni b.example",
            &["check = \"tls\"", "sni = \"a.example\""],
            &[],
        ),
        (
            "option tcp-check\n tcp-check connect default\n server s 10.0.0.1:1 check ssl verify none check-sni b.example",
            &["check = \"tls\"", "sni = \"b.example\""],
            &[],
        ),
        (
            "option tcp-check\n tcp-check connect ssl\n server s 10.0.0.1:1 check check-sni b.example",
            &["check = \"tls\""],
            &[],
        ),
        (
            "option tcp-check\n tcp-check connect addr 10.0.0.9 ssl port 26\n server s 10.0.0.1:1 check",
            &["check = \"tls\"", "port = 26"],
            &[
                "# not carried over, line 5: tcp-check connect addr 10.0.0.9 ssl port 26 (of this line, only \
                 `default`, `ssl`, `send-proxy`, a host name and a port are kept)",
            ],
        ),
        (
            "option tcp-check\n tcp-check connect ssl sni a_b! port 0\n server s 10.0.0.1:1 check",
            &["check = \"tls\""],
            &[
                "# not carried over, line 5: tcp-check connect ssl sni a_b! port 0 (of this line, only `default`, \
                 `ssl`, `send-proxy`, a host name and a port are kept)",
            ],
        ),
        (
            "option httpchk\n http-check connect ssl port 8\n http-check connect port 9\n http-check send meth GET\n \
             http-check expect status 204\n http-check connect port 10\n http-check send uri /x\n server s 10.0.0.1:1 check",
            &["check = \"http\"", "expect = \"204\"", "port = 9"],
            &[
                "# note, line 6: the connection of an earlier line is not checked",
                "# not carried over, line 9: http-check connect port 10 (a check sends one request)",
                "# not carried over, line 10: http-check send uri /x (a check sends one request)",
            ],
        ),
        (
            "option httpchk\n http-check send meth GET\n http-check send uri /x\n server s 10.0.0.1:1 check",
            &["check = \"http\""],
            &["# not carried over, line 6: http-check send uri /x (a check sends one request)"],
        ),
    ] {
        let (found, found_remarks) = health_and_remarks(section);
        assert_eq!(found, health, "{section}");
        assert_eq!(found_remarks, remarks, "{section}");
    }
}

#[test]
fn values_of_haproxy_servers_that_are_not_carried_over_are_reported() {
    let zero = " (HAProxy accepts no 0 either)";
    for (option, why) in [
        ("inter 5x", " (not a duration)"),
        ("inter 0", zero),
        ("inter \"\"", " (not a duration)"),
        ("downinter x", " (not a duration)"),
        ("downinter 0ms", zero),
        ("rise 0", zero),
        ("fall 00", zero),
        ("fall x", " (not a number)"),
        ("weight x", ""),
        ("weight 257", " (HAProxy accepts no weight above 256 either)"),
        ("port 0", ""),
        ("agent-port 70000", ""),
        ("addr db.internal", ""),
        ("agent-addr agent.internal", ""),
        ("agent-inter x", " (not a duration)"),
        ("agent-inter 0", zero),
        ("slowstart x", " (not a duration)"),
        ("maxconn x", " (not a number)"),
        ("verify maybe", ""),
        ("sni ssl_fc_sni,map(/etc/names)", ""),
        ("verifyhost a!b", ""),
        ("check-sni a!b", ""),
        ("crt /", ""),
        ("ca-file /", ""),
        ("resolve-prefer ipv5", ""),
        ("on-marked-down x", ""),
        ("alpn h2,,", ""),
        ("source lo", ""),
        ("check-pool-conn-name a", ""),
        ("idle-ping 5s", ""),
        ("set-proxy-v2-tlv-fmt(0x20) %[fc_pp_tlv(0x20)]", ""),
    ] {
        let (health, remarks) = health_and_remarks(&format!(
            "default-server inter 7s port 9 addr 10.0.0.9 weight 5\n server s 10.0.0.1:1 check {option}"
        ));
        assert_eq!(remarks, [format!("# not carried over, line 5: {option}{why}")]);
        assert_eq!(
            health,
            ["interval = \"7s\"", "port = 9", "address = \"10.0.0.9\""],
            "{option}"
        );
    }
}

#[test]
fn values_of_haproxy_that_are_too_large_or_small_here_are_cut_with_a_note() {
    let too_much = "is more than is possible here";
    for (line, written, note) in [
        (
            "server s 10.0.0.1:1 check rise 5000",
            "rise = 1000",
            format!("5000 {too_much}: 1000 is used"),
        ),
        (
            "server s 10.0.0.1:1 check inter 5ms",
            "interval = \"10ms\"",
            String::from("5ms is less than is possible here: 10ms is used"),
        ),
        (
            "server s 10.0.0.1:1 maxconn 2000000",
            "max_sessions = 1000000",
            format!("2000000 {too_much}: 1000000 is used"),
        ),
        (
            "retries 500\n server s 10.0.0.1:1",
            "retries = 100",
            format!("500 {too_much}: 100 is used"),
        ),
    ] {
        let text = format!("listen a\n mode tcp\n bind :1\n {line}\n");
        let lines = lines(Origin::Haproxy, &text);
        assert_lines(&lines, &[written, &format!("# note, line 4: {note}")]);
    }
    let timeout = "listen a\n mode tcp\n bind :1\n timeout client 400d\n server s 10.0.0.1:1\n";
    let note = "# note, line 4: 400d is more than is possible here: 8760h is used";
    assert_lines(&lines(Origin::Haproxy, timeout), &["idle_timeout = \"8760h\"", note]);
    // `slowstart 0` switches off what `default-server` sets.
    let without = "listen a\n mode tcp\n bind :1\n default-server slowstart 9s\n server s 10.0.0.1:1 slowstart 0\n";
    assert_no_line(&lines(Origin::Haproxy, without), |line| line.starts_with("slow_start"));
}

#[test]
fn options_of_default_server_that_are_left_out_are_reported_once_with_their_line() {
    let text = "
defaults
    mode tcp
    default-server check inter 0
listen a
    bind :1
    server s 10.0.0.1:1
listen b
    bind :2
    default-server cookie x
    server s 10.0.0.2:1
";
    let lines = lines(Origin::Haproxy, text);
    let remarks: Vec<_> = lines.iter().filter(|line| line.starts_with('#')).collect();
    assert_eq!(
        remarks,
        [
            "# not carried over, line 4: inter 0 (HAProxy accepts no 0 either)",
            "# not carried over, line 10: cookie x",
        ]
    );
}

#[test]
fn a_haproxy_agent_that_only_some_servers_have_is_noted() {
    let (health, remarks) =
        health_and_remarks("server s 10.0.0.1:1 agent-check port 7 addr 10.0.0.9\n server t 10.0.0.2:1");
    assert_eq!(
        health,
        ["check = \"agent\"", "port = 7", "address = \"10.0.0.9\""],
        "`port` and `addr` hold for the agent, too"
    );
    assert_eq!(
        remarks,
        ["# note, line 5: 10.0.0.2:1 had no checks; here all servers of a pool have them"]
    );
}

#[test]
fn an_invalid_value_of_haproxy_leaves_the_inherited_one_but_an_unsupported_policy_does_not() {
    let text = "
defaults
    mode tcp
    balance leastconn
    timeout client 1m
    timeout tunnel 2m
    timeout queue 3s
listen a
    bind :1
    balance uri
    timeout client 5x
    timeout server x
    timeout tunnel x
    timeout queue x
    server s 10.0.0.1:1 maxconn 5
";
    assert_lines(
        &lines(Origin::Haproxy, text),
        &[
            "# not carried over, line 10: balance uri (round-robin is used)",
            "balance = \"round-robin\"",
            "# not carried over, line 11: timeout client 5x (not a duration)",
            "# not carried over, line 12: timeout server x (not a duration)",
            "# not carried over, line 13: timeout tunnel x (not a duration)",
            "# not carried over, line 14: timeout queue x (not a duration)",
            "idle_timeout = \"2m\"",
            "queue = { timeout = \"3s\" }",
        ],
    );
}

#[test]
fn a_test_of_the_client_hello_beside_others_is_kept_unless_alpn_implies_it() {
    let note = "# note, line 5: TLS clients without a server name do not take this route";
    for rule in ["use_backend b", "tcp-request content reject"] {
        let lines = lines_with_rules(&format!("{rule} if {{ req.ssl_hello_type 1 }} {{ src 10.0.0.0/8 }}"));
        assert_lines(&lines, &["sni = \"*\"", "from = \"10.0.0.0/8\"", note]);
        let lines = lines_with_rules(&format!("{rule} if {{ req.ssl_hello_type 1 }} {{ req.ssl_alpn h2 }}"));
        assert_no_line(&lines, |line| line == note || line.starts_with("sni"));
    }
}

#[test]
fn a_haproxy_alternative_keeps_its_note_if_another_one_is_left_out() {
    let lines = lines_with_rules("tcp-request content reject if { hdr(host) x } or { req.ssl_sni -m end a.example }");
    let partial =
        "# note, line 5: a longer name that ends with the value, but has no dot before that value, does not match";
    assert_lines(&lines, &["refuse = true", partial]);
    assert!(
        lines.iter().any(|line| line.starts_with("# not carried over, line 5:")),
        "{lines:#?}"
    );
}

#[test]
fn names_that_haproxy_accepts_are_not_refused() {
    let accept = "tcp-request content accept if { req.ssl_sni -m end .in.example }\n\
                  tcp-request content accept if { req.ssl_sni a.example }";
    let lines = lines_with_rules(&format!(
        "{accept}\ntcp-request content reject if {{ req.ssl_sni a.example b.example }}\n\
         tcp-request content reject if {{ req.ssl_sni A.EXAMPLE x.in.example }}"
    ));
    assert_lines(&lines, &["sni = \"b.example\"", "refuse = true"]);
    assert_eq!(
        lines.iter().filter(|line| *line == "refuse = true").count(),
        1,
        "{lines:#?}"
    );
    assert_no_line(&lines, |line| line.starts_with("# note"));
}

#[test]
fn routes_that_win_here_against_an_earlier_line_are_noted() {
    let note = |why: &str| {
        format!("# note, line 5: line 6 has {why} and wins here where both match; HAProxy applies this line first")
    };
    for (first, second, why) in [
        (
            "{ src 10.0.0.0/8 }",
            "{ req.ssl_sni a.example }",
            Some("a more exact name"),
        ),
        (
            "{ req.ssl_sni -m end .EXAMPLE }",
            "{ req.ssl_sni a.example }",
            Some("a more exact name"),
        ),
        (
            "{ req.ssl_sni a.example }",
            "{ req.ssl_sni A.example } { src 10.0.0.0/8 }",
            Some("more kinds of conditions"),
        ),
        ("{ req.ssl_sni a.example }", "{ req.ssl_sni -m end .example }", None),
        ("{ src 10.0.0.0/8 }", "{ src 10.1.0.0/16 }", None),
    ] {
        let lines = lines_with_rules(&format!("use_backend b if {first}\nuse_backend a if {second}"));
        let notes: Vec<String> = lines.into_iter().filter(|line| line.starts_with("# note")).collect();
        assert_eq!(notes, Vec::from_iter(why.map(note)), "{first} {second}");
    }
    // The refusing route gets the exact name, too: of routes with the same name and equally many kinds of conditions,
    // the first wins.
    let lines = lines_with_rules(
        "tcp-request content reject if { req.ssl_sni -m end .Example }\nuse_backend a if { req.ssl_sni A.example }",
    );
    assert_lines(&lines, &["sni = [\"*.example\", \"a.example\"]"]);
    assert_no_line(&lines, |line| line.starts_with("# note"));
    let lines = lines_with_rules(
        "tcp-request content reject if { req.ssl_sni a.example }\n\
         use_backend a if { req.ssl_sni a.example } { src 10.0.0.0/8 }",
    );
    assert_lines(&lines, &[&note("more kinds of conditions")]);
}

#[test]
fn peers_that_an_earlier_line_accepts_are_not_expected_to_send_a_header() {
    let expect = "tcp-request connection expect-proxy layer4 if { src 10.0.0.0/30 }";
    let accept = "tcp-request connection accept";
    let lines = lines_with_rules(&format!("{accept} if {{ src 10.0.0.1 }}\n{expect}"));
    assert_lines(&lines, &["accept_proxy = { from = [\"10.0.0.2/31\", \"10.0.0.0\"] }"]);
    for accept in [String::from(accept), format!("{accept} if {{ src 10.0.0.0/8 }}")] {
        let lines = lines_with_rules(&format!("{accept}\n{expect}"));
        assert_no_line(&lines, |line| line.starts_with("accept_proxy"));
    }
}

#[test]
fn haproxy_rules_about_peers_that_send_a_header_are_noted() {
    let note = "# note, line 5: HAProxy tests the address of the peer; acequia tests that of the client, which the PROXY \
                header names";
    let expect = "tcp-request connection expect-proxy layer4 if { src 10.0.0.9 }";
    let reject = |set: &str| format!("tcp-request {set} reject unless {{ src 10.0.0.0/8 }}");
    assert_lines(
        &lines_with_rules(&format!("{}\n{expect}", reject("connection"))),
        &[note],
    );
    for rules in [reject("connection"), format!("{}\n{expect}", reject("session"))] {
        let lines = lines_with_rules(&rules);
        assert_no_line(&lines, |line| line.starts_with("# note"));
    }
}

#[test]
fn values_of_a_haproxy_bind_that_are_not_carried_over_are_reported() {
    for option in [
        "alpn h2,,",
        "backlog x",
        "maxconn ${MAX}",
        "mode 9",
        "ssl-min-ver x",
        "verify maybe",
        "ca-file /",
        "crt /",
    ] {
        let text = format!("listen a\n mode tcp\n bind :1 ssl crt /a.pem {option} v6only\n server s 10.0.0.1:1\n");
        let lines = lines(Origin::Haproxy, &text);
        let remarks: Vec<_> = lines.iter().filter(|line| line.starts_with("# not")).collect();
        let why = match option.contains("backlog") || option.contains("maxconn") {
            true => " (not a number)",
            false => "",
        };
        assert_eq!(
            remarks,
            [&format!("# not carried over, line 3: of bind: {option}{why}")]
        );
    }
}

#[test]
fn a_listener_with_too_many_routes_to_compare_gets_one_note() {
    let rule = |number: u32| {
        let pool = ["a", "b"][number as usize % 2];
        format!(
            "use_backend {pool} if {{ src 10.0.{}.{} }}\n",
            number / 256,
            number % 256
        )
    };
    let notes = |rules: u32| {
        let lines = lines_with_rules(&(0..rules).map(rule).collect::<String>());
        lines
            .into_iter()
            .filter(|line| line.starts_with("# note"))
            .collect::<Vec<_>>()
    };
    assert!(notes(1000).is_empty());
    let many = notes(5000);
    assert!(
        many.len() == 1 && many[0].contains("too many routes to compare"),
        "{many:#?}"
    );
}

#[test]
fn only_a_positive_string_expect_of_redis_sets_the_role() {
    let imported = |expect: &str| lines_with_tcp_checks(&format!("send info\\ replication\\r\\n\nexpect {expect}"));
    assert_lines(&imported("comment role string role:master"), &["role = \"primary\""]);
    for expect in ["! string role:master", "binary role:master"] {
        let lines = imported(expect);
        let remark = format!("# not carried over, line 6: tcp-check expect {expect}");
        assert_lines(&lines, &["check = \"redis\"", &remark]);
        assert_no_line(&lines, |line| line.starts_with("role"));
    }
}

#[test]
fn a_tunnel_timeout_of_0_cancels_the_inherited_one() {
    let text = "
defaults
    mode tcp
    timeout client 1m
    timeout server 2m
    timeout tunnel 1h
listen a
    bind :1
    timeout tunnel 0
    server s 10.0.0.1:1
listen b
    bind :2
    server s 10.0.0.2:1
";
    let lines = lines(Origin::Haproxy, text);
    let idle: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("idle_timeout = "))
        .collect();
    assert_eq!(idle, ["\"2m\"", "\"1h\""]);
}

#[test]
fn a_caret_in_a_later_haproxy_expect_matches_at_every_line() {
    for (expression, expected) in [
        ("^250", "(?m)^250"),
        ("(^220|^250)", "(?m)(^220|^250)"),
        ("[^2]$", "[^2]$"),
        (r"a\\^b$", r"a\^b$"),
    ] {
        let (health, remarks) = health_and_remarks(&format!(
            "option tcp-check\n tcp-check expect rstring ^220\n tcp-check send QUIT\n tcp-check expect rstring {expression}\n \
             server s 10.0.0.1:1 check"
        ));
        let steps = health.iter().find(|line| line.starts_with("steps")).unwrap();
        assert!(steps.contains("{ expect = \"^220\" }"), "{steps}");
        let contained = |quote| steps.contains(&format!("expect = {quote}{expected}{quote}"));
        assert!(contained('"') || contained('\''), "{expected} in {steps}");
        assert!(remarks.is_empty(), "{remarks:?}");
    }
}

#[test]
fn the_state_that_checks_of_haproxy_send_is_reported() {
    let (_, remarks) = health_and_remarks("option httpchk\n http-check send-state\n server s 10.0.0.1:1 check");
    let remark = "# not carried over, line 5: http-check send-state (checks do not send the header field \
                  X-Haproxy-Server-State)";
    assert_eq!(remarks, [remark]);
}

#[test]
fn a_haproxy_address_with_tls_but_without_a_certificate_is_reported() {
    let listen = |binds: &str| {
        let text = format!("listen a\n mode tcp\n {binds}\n server s 10.0.0.1:1\n");
        lines(Origin::Haproxy, &text)
    };
    let remark = |what: &str, address: &str| {
        format!("# not carried over: {what} (no certificate was carried over; TLS is passed on at {address})")
    };
    assert_lines(&listen("bind :1 ssl"), &[&remark("TLS", "0.0.0.0:1")]);
    assert_lines(
        &listen("bind :1 ssl crt / alpn h2 ssl-min-ver TLSv1.3"),
        &[&remark("TLS with alpn = \"h2\", min_version = \"1.3\"", "0.0.0.0:1")],
    );
    // The certificate of another address is not for this one.
    let lines = listen("bind :1 ssl crt-list /list\n bind :2 ssl crt /a.pem");
    assert_lines(
        &lines,
        &[
            "# not carried over, line 3: of bind: crt-list /list (write an entry of `certificates` for each line of the \
             file)",
            &remark("TLS", "0.0.0.0:1"),
        ],
    );
    let is_shown = |line: &&String| line.starts_with("[l") || line.starts_with("bind");
    let sections: Vec<_> = lines.iter().filter(is_shown).collect();
    assert_eq!(
        sections,
        [
            "[listeners.a]",
            "bind = \"0.0.0.0:2\"",
            "[listeners.a.tls]",
            "[listeners.a-plain]",
            "bind = \"0.0.0.0:1\"",
        ]
    );
}

#[test]
fn an_address_belongs_to_the_first_haproxy_line_that_has_it() {
    let text = "
listen y
    mode tcp
    bind :1 ssl crt /a.pem
    bind :2
    bind :1
    server s 10.0.0.1:1
listen z
    mode tcp
    bind :2
    bind :3 ssl crt /a.pem
    bind :4
    server s 10.0.0.2:1
";
    let lines = lines(Origin::Haproxy, text);
    let is_shown = |line: &&String| ["[l", "bind", "#"].iter().any(|start| line.starts_with(start));
    let found: Vec<_> = lines.iter().filter(is_shown).collect();
    assert_eq!(
        found,
        [
            "[listeners.y]",
            "# not carried over, line 6: address 0.0.0.0:1 (it is bound already)",
            "bind = \"0.0.0.0:1\"",
            "[listeners.y.tls]",
            "[listeners.z]",
            "# not carried over: address 0.0.0.0:2 (it is bound already)",
            "bind = \"0.0.0.0:3\"",
            "[listeners.z.tls]",
            "[listeners.y-plain]",
            "bind = \"0.0.0.0:2\"",
            "[listeners.z-plain]",
            "bind = \"0.0.0.0:4\"",
        ]
    );
}

#[test]
fn a_conversation_whose_first_step_is_not_of_the_redis_check_is_kept_whole() {
    let lines = lines_with_tcp_checks(
        "send CLIENT\\ SETNAME\\ check\\r\\n\nexpect string +OK\nsend AUTH\\ x\\r\\n\nsend PING\\r\\n\n\
         expect string +PONG\nsend role\\r\\n\nexpect string master",
    );
    let sent = |text: &str, expected: &str| format!("{{ send = \"{text}\\r\\n\"{expected} }}");
    let steps = [
        sent("CLIENT SETNAME check", r", expect = '\+OK'"),
        sent("AUTH x", ""),
        sent("PING", r", expect = '\+PONG'"),
        sent("role", r#", expect = "master""#),
    ];
    let steps = format!("steps = [{}]", steps.join(", "));
    assert_lines(&lines, &["check = \"send-expect\"", &steps]);
    assert_no_line(&lines, |line| line.starts_with('#'));
}

#[test]
fn an_empty_word_of_haproxy_is_seen_in_a_remark() {
    let lines = lines_with_rules("acl x req.ssl_sni \"\" a\\ b");
    let remark = "# not carried over, line 5: acl x req.ssl_sni \"\" \"a b\" (a value is missing or not a server name)";
    assert_lines(&lines, &[remark]);
}
