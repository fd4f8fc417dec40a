//! Generated files: whatever the imported file, the result is a valid configuration, or `Err` if it cannot be imported.

use proptest::prelude::*;

use super::*;

/// Files of these words in any order, with random text among them. A word that is listed several times is chosen more
/// often.
fn file(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let word = prop_oneof![8 => proptest::sample::select(words).prop_map(String::from), 1 => ".{0,12}"];
    proptest::collection::vec(word, 0..80).prop_map(|words| words.join(" ") + "\n")
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
    "req.ssl_hello_type 1",
    "tcp-request content accept if { req.ssl_sni A.example }\n",
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
    "crt /",
    "ca-file",
    "agent-check",
    "agent-port 9",
    "agent-addr x",
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
    "tcp-check connect default send-proxy",
    "http-check connect ssl sni a.example",
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

/// Nested blocks with directives of [`NGINX`]. All are closed: a file with an open block is an error.
fn nginx_file() -> impl Strategy<Value = String> {
    let words = prop_oneof![
        8 => proptest::sample::select(NGINX).prop_map(String::from),
        1 => "[^;{}\"'#\\\\]{0,12};",
    ];
    let blocks = words.prop_recursive(4, 80, 12, |inside| {
        let inside = proptest::collection::vec(inside, 0..12);
        (proptest::sample::select(NGINX_BLOCKS), inside)
            .prop_map(|(begin, inside)| format!("{begin} {} }}", inside.join(" ")))
    });
    proptest::collection::vec(blocks, 0..12).prop_map(|blocks| blocks.join(" "))
}

/// How blocks begin.
const NGINX_BLOCKS: &[&str] = &[
    "stream {",
    "server {",
    "server { listen 7; proxy_pass 10.0.0.2:1;",
    "server { listen 8 ssl; proxy_pass a;",
    "upstream a {",
    "upstream a { server 10.0.0.3:1;",
    "map $ssl_preread_server_name $x {",
    "map $ssl_preread_alpn_protocols $x {",
    "{",
];

const NGINX: &[&str] = &[
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
    "ssl_certificate \"\";",
    "ssl_certificate_key /a/;",
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
    "listen \"6\";",
    "# }\n",
    "\n",
    "${x};",
];

proptest! {
    #[test]
    fn the_result_of_any_haproxy_file_is_valid(text in file(HAPROXY)) {
        drop(checked(Origin::Haproxy, &text));
    }

    #[test]
    fn the_result_of_any_nginx_file_is_valid(text in nginx_file()) {
        drop(checked(Origin::Nginx, &text));
    }

    #[test]
    fn any_text_is_imported_without_a_panic(text in "(?s).{0,400}") {
        drop(checked(Origin::Haproxy, &format!("{text}\n")));
        drop(checked(Origin::Nginx, &text));
    }
}
