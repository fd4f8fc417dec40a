//! The check `http`, against nginx, a server that answers as Patroni does, and hostile servers.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::authority::{Authority, replace};
use crate::support::client::{Client, server_reached};
use crate::support::configs::{listener, one_pool, pool};
use crate::support::eventually;
use crate::support::process::{Port, Process};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::anonymous_bytes;

fn config(server: SocketAddr, health_keys: &str) -> String {
    one_pool(
        &[server],
        &format!("[pools.p.health]\ncheck = \"http\"\ninterval = \"20ms\"\n{health_keys}"),
    )
}

fn health_and_reason(proxy: &Proxy, server: SocketAddr) -> (String, String) {
    let body = proxy.server("p", &server.to_string());
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    (text("health"), text("reason"))
}

/// nginx with a port for plain HTTP and one for TLS.
struct Nginx {
    plain: Port,
    tls: Port,
    directory: tempfile::TempDir,
    _process: Process,
}

impl Nginx {
    fn start() -> Self {
        let (plain, tls, directory) = (Port::keep(), Port::keep(), tempfile::tempdir().unwrap());
        let authority = Authority::new("authority");
        replace(&directory.path().join("ca.pem"), &authority.certificate());
        authority.issue(&["web.example"]).write(directory.path(), "web");
        let path = |name: &str| directory.path().join(name).display().to_string();
        let server = "location / { return 404; } location = /ok { return 200 '{\"status\": \"ok\"}'; } \
                      location = /down { return 503; }";
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {pid}; error_log {error} info;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log {access}; client_body_temp_path {body}; proxy_temp_path {body}; fastcgi_temp_path {body};\n\
             uwsgi_temp_path {body}; scgi_temp_path {body};\n\
             server {{ listen {plain}; {server} }}\n\
             server {{ listen {tls} ssl http2; server_name web.example; ssl_certificate {cert}; ssl_certificate_key {key}; {server} }} }}\n",
            pid = path("pid"),
            error = path("error.log"),
            access = path("access.log"),
            body = path("body"),
            plain = plain.address,
            tls = tls.address,
            cert = path("web.pem"),
            key = path("web.key"),
        );
        std::fs::write(path("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-c", &path("nginx.conf"), "-e", &path("error.log")]);
        let process = Process::start(&mut command);
        eventually("nginx listens", || TcpStream::connect(tls.address).is_ok());
        Self {
            plain,
            tls,
            directory,
            _process: process,
        }
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

#[test]
fn the_check_judges_status_and_body_of_nginx_with_and_without_tls() {
    let nginx = Nginx::start();
    let ca_file = nginx.directory.path().join("ca.pem");
    let with_tls = format!("tls = true\nsni = \"web.example\"\nverify = true\nca_file = {ca_file:?}");
    let proxy = Proxy::start(&config(
        nginx.plain.address,
        "path = \"/ok\"\nbody = '\"status\": *\"ok\"'",
    ));
    assert_eq!(health_and_reason(&proxy, nginx.plain.address).0, "up");
    for (server, keys, expected, reason) in [
        (&nginx.plain, "", "down", "404 Not Found"),
        (&nginx.plain, "expect = [\"200\", 404]", "up", ""),
        (
            &nginx.plain,
            "path = \"/ok\"\nbody = \"bad\"",
            "down",
            "`bad` is not in the first 16 bytes",
        ),
        (&nginx.plain, "path = \"/ok\"\ntls = true", "down", "does not speak TLS"),
        (&nginx.tls, &format!("path = \"/ok\"\n{with_tls}"), "up", ""),
        (
            &nginx.tls,
            "path = \"/ok\"\ntls = true\nverify = true\nsni = \"other.example\"",
            "down",
            "certificate",
        ),
        (&nginx.tls, "path = \"/ok\"", "down", "400 Bad Request"),
    ] {
        assert!(
            proxy.reload(&config(server.address, &format!("fall = 1\n{keys}"))),
            "{keys}"
        );
        eventually(&format!("{expected} with {keys}"), || {
            let (health, why) = health_and_reason(&proxy, server.address);
            health == expected && why.contains(reason)
        });
    }
    // nginx can speak HTTP/2, but every request is HTTP/1.1. A ClientHello on the plain port is logged with status 400.
    let log = nginx.file("access.log");
    assert!(
        log.lines()
            .all(|line| line.contains("HTTP/1.1\"") || line.contains("\" 400 ")),
        "{log}"
    );
    assert!(log.contains("\"acequia/"), "{log}");
}

/// Answers `GET /primary` and `GET /replica` as the REST API of Patroni does, by the documentation of version 4: 200 if
/// the member runs and has the role, else 503. The body is its state in JSON. Ignores `lag`: no member is behind.
fn patroni(is_primary: &Arc<AtomicBool>, is_running: &Arc<AtomicBool>) -> Server {
    let (is_primary, is_running) = (Arc::clone(is_primary), Arc::clone(is_running));
    Server::run(move |mut stream| {
        let mut line = String::new();
        let _ = BufReader::new(stream.try_clone().unwrap()).read_line(&mut line);
        let role = if is_primary.load(SeqCst) { "primary" } else { "replica" };
        let state = if is_running.load(SeqCst) { "running" } else { "stopped" };
        let asked = line.split(['/', '?', ' ']).nth(2).unwrap_or_default();
        let status = if (asked, state) == (role, "running") {
            "200 OK"
        } else {
            "503 Service Unavailable"
        };
        let body = format!("{{\"state\": \"{state}\", \"role\": \"{role}\", \"server_version\": 160004}}");
        let head =
            format!("HTTP/1.0 {status}\r\nServer: BaseHTTP/0.6 Python/3.11\r\nContent-Type: application/json\r\n\r\n");
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
    })
}

#[test]
fn one_answer_after_a_patroni_failover_changes_which_servers_are_used() {
    let roles = [true, false].map(|is_primary| Arc::new(AtomicBool::new(is_primary)));
    let is_running = Arc::new(AtomicBool::new(true));
    let members = roles.each_ref().map(|role| patroni(role, &is_running));
    let databases = [Server::named("first"), Server::named("second")];
    // In a cluster, Patroni has the same port at each address. Here its port differs between the members. `port` is a
    // key of the pool, so each member has a pool of its own. With `fall = 1000`, failed checks would take 20 s to stop
    // the use of a server; a wrong role stops it at once.
    let check = |member: &Server, path: &str| {
        format!(
            "on_down = \"close\"\nclose_over = \"0s\"\nhealth = {{ check = \"http\", port = {}, path = \"{path}\", \
             expect = \"200\", wrong_role = \"503\", interval = \"20ms\", fall = 1000, rise = 1000 }}",
            member.address.port()
        )
    };
    let text = [
        listener("first", "first", ""),
        listener("second", "second", ""),
        pool("first", &[databases[0].address], &check(&members[0], "/primary")),
        pool("second", &[databases[1].address], &check(&members[1], "/primary")),
        listener("replica", "replica", ""),
        pool(
            "replica",
            &[databases[1].address],
            &check(&members[1], "/replica?lag=16MB"),
        ),
    ]
    .concat();
    let proxy = Proxy::start(&text);
    assert_eq!(server_reached(proxy.at("first")), "first");
    assert_eq!(server_reached(proxy.at("replica")), "second");
    assert_eq!(server_reached(proxy.at("second")), "", "it is a replica");
    let mut held = Client::connect(proxy.at("first"));
    assert_eq!(held.read(5), b"first");
    roles[0].store(false, SeqCst);
    roles[1].store(true, SeqCst);
    eventually("the new primary is used", || {
        server_reached(proxy.at("second")) == "second"
    });
    eventually("the old primary is not used", || {
        server_reached(proxy.at("first")).is_empty()
    });
    held.must_be_reset();
    eventually("the new primary is not used as a replica", || {
        server_reached(proxy.at("replica")).is_empty()
    });
    let reason = proxy.server("first", &databases[0].address.to_string())["reason"].clone();
    assert_eq!(
        reason,
        "the server answers 503 Service Unavailable: it has another role, or is behind"
    );
}

#[test]
fn a_patroni_member_is_healthy_while_its_postgresql_runs() {
    let [is_primary, is_running] = [false, true].map(|value| Arc::new(AtomicBool::new(value)));
    let (member, database) = (patroni(&is_primary, &is_running), Server::named("database"));
    let check = format!(
        "health = {{ check = \"http\", port = {}, path = \"/primary\", expect = \"200\", wrong_role = \"503\", \
         wrong_role_body = '\"state\": ?\"running\"', interval = \"20ms\", fall = 1000 }}",
        member.address.port()
    );
    let proxy = Proxy::start(&[listener("p", "p", ""), pool("p", &[database.address], &check)].concat());
    let shown = || {
        let metrics = proxy.metrics();
        let servers = |state| metrics.sum("acequia_pool_servers", &[("state", state)]);
        let healthy_and_up = ["acequia_server_healthy", "acequia_server_up"].map(|name| metrics.sum(name, &[]));
        (healthy_and_up, servers("wrong_role"), servers("unhealthy"))
    };
    eventually("it works, as a replica", || shown() == ([1.0; 2], 1.0, 0.0));
    assert!(
        proxy.get("/metrics").1.contains("acequia_server_role_ok{pool=\"p\""),
        "expected the series because the pool has `wrong_role`"
    );
    is_running.store(false, SeqCst);
    eventually("it does not work", || shown() == ([0.0; 2], 0.0, 1.0));
    assert_eq!(server_reached(proxy.at("p")), "");
}

#[test]
fn hostile_servers_fail_within_the_timeout_and_cost_little_memory() {
    let resetting: fn(TcpStream) = |stream| {
        socket2::SockRef::from(&stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    };
    let endless_head: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 ");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    };
    let endless_fields: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"A: b\r\n").is_ok() {}
    };
    let endless_informational: fn(TcpStream) =
        |mut stream| while stream.write_all(b"HTTP/1.1 103 Hints\r\n\r\n").is_ok() {};
    let garbage: fn(TcpStream) = |mut stream| drop(stream.write_all(&[0xff; 1000]));
    let silent: fn(TcpStream) = |stream| drop(std::io::copy(&mut &stream, &mut std::io::sink()));
    let endless_chunk: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;");
        while stream.write_all(b"x").is_ok() {}
    };
    let huge_chunk: fn(TcpStream) = |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    };
    let servers = [
        resetting,
        endless_head,
        endless_fields,
        endless_informational,
        garbage,
        silent,
        endless_chunk,
        huge_chunk,
    ]
    .map(Server::run);
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let health =
        "[pools.p.health]\ncheck = \"http\"\nbody = \"ok\"\ninterval = \"20ms\"\ntimeout = \"300ms\"\nfall = 1";
    let proxy = Proxy::start(&one_pool(&addresses, health));
    let failed = || {
        let metrics = proxy.metrics();
        metrics.sum("acequia_health_checks_total", &[("result", "fail")])
            + metrics.sum("acequia_health_checks_total", &[("result", "timeout")])
    };
    eventually("there were some checks", || failed() >= 80.0);
    for address in addresses {
        assert_eq!(health_and_reason(&proxy, address).0, "down", "{address}");
    }
    let memory = anonymous_bytes(&proxy);
    assert!(memory < 200 << 20, "{memory} bytes");
    assert_eq!(
        proxy
            .metrics()
            .sum("acequia_health_checks_total", &[("result", "pass")]),
        0.0
    );
}
