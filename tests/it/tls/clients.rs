//! Clients of other programs whose TLS ends at a listener.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::database::Redis;
use crate::support::eventually;
use crate::support::process::{Port, Process, must};
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// An nginx that speaks HTTP/2 without TLS, and answers with the version of HTTP.
fn plain_http2(folder: &Path) -> (Port, Process) {
    let port = Port::keep();
    let path = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "daemon off; master_process off; worker_processes 1; pid {pid}; error_log {error};\n\
         events {{ worker_connections 64; }}\n\
         http {{ access_log off; client_body_temp_path {body}; proxy_temp_path {body}; fastcgi_temp_path {body};\n\
         uwsgi_temp_path {body}; scgi_temp_path {body};\n\
         server {{ listen {address} http2; location / {{ return 200 $server_protocol; }} }} }}\n",
        pid = path("pid"),
        error = path("error.log"),
        body = path("body"),
        address = port.address,
    );
    std::fs::write(path("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.args(["-c", &path("nginx.conf"), "-e", &path("error.log")]);
    let process = Process::start(&mut command);
    listens("nginx", port.address);
    (port, process)
}

fn listens(what: &str, address: SocketAddr) {
    eventually(&format!("{what} listens"), || TcpStream::connect(address).is_ok());
}

#[test]
fn curl_speaks_http2_through_to_a_server_without_tls() {
    let site = Site::new();
    let (port, _nginx) = plain_http2(site.folder());
    let proxy = Proxy::start(&site.config(port.address, "alpn = [\"h2\"]", ""));
    replace(&site.folder().join("ca.pem"), &site.authority.certificate());
    let answer = must(
        Command::new("curl")
            .args(["-sS", "--http2", "--cacert"])
            .arg(site.folder().join("ca.pem"))
            .args([
                "--connect-to",
                &format!("::{}", proxy.at("tls")),
                "https://shop.example/",
            ]),
    );
    assert_eq!(answer.trim_end(), "HTTP/2.0");
    assert_eq!(proxy.access_line()["tls"], "1.3");
}

#[test]
fn mosquitto_subscribes_and_publishes_with_certificates_of_clients() {
    let (site, clients, port) = (Site::new(), Authority::new("clients"), Port::keep());
    let path = |name: &str| site.folder().join(name).display().to_string();
    replace(&site.folder().join("ca.pem"), &site.authority.certificate());
    replace(&site.folder().join("clients.pem"), &clients.certificate());
    clients.issue(&["meter.example"]).write(site.folder(), "meter");
    let broker = format!("listener {} 127.0.0.1\nallow_anonymous true\n", port.number());
    std::fs::write(path("mosquitto.conf"), broker).unwrap();
    let _broker = Process::start(Command::new("mosquitto").args(["-c", &path("mosquitto.conf")]));
    listens("mosquitto", port.address);
    let auth = format!("client_auth = {{ ca_file = {} }}", site.file("clients.pem"));
    let proxy = Proxy::start(&site.config(port.address, &auth, ""));
    let client = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        // `--insecure`: the address is not a name of the certificate, whose authority is verified all the same.
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &proxy.at("tls").port().to_string(),
            "--insecure",
        ]);
        command.args([
            "--cafile",
            &path("ca.pem"),
            "--cert",
            &path("meter.pem"),
            "--key",
            &path("meter.key"),
        ]);
        command.args(["-t", "meters"]).args(arguments);
        command
    };
    // A retained message is for subscribers that come later, too.
    must(&mut client("mosquitto_pub", &["-r", "-q", "1", "-m", "agua"]));
    let received = must(&mut client("mosquitto_sub", &["-C", "1", "-W", "30"]));
    assert_eq!(received.trim_end(), "agua");
    let lines = proxy.access_lines(2);
    let is_known = |line: &serde_json::Value| line["client_cert"]["subject"] == "CN=meter.example";
    assert!(lines.iter().all(is_known), "{lines:#?}");
}

#[test]
fn openssl_and_python_are_served_and_resume_their_sessions() {
    const PYTHON: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
session = None
for _ in range(2):
    plain = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
    with context.wrap_socket(plain, server_hostname='shop.example', session=session) as client:
        client.sendall(b'hello')
        print(client.recv(5).decode(), client.version(), client.session_reused)
        session = client.session
";
    let (site, echo) = (Site::new(), Server::echo());
    let proxy = site.start(echo.address);
    let ca = site.folder().join("ca.pem");
    replace(&ca, &site.authority.certificate());
    let (ca, port) = (ca.display().to_string(), proxy.at("tls").port().to_string());
    let printed = must(Command::new("python3").args(["-c", PYTHON, &port, &ca]));
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["hello TLSv1.3 False", "hello TLSv1.3 True"]
    );
    for version in ["-tls1_2", "-tls1_3"] {
        // It ends its stream at the end of its input.
        let client = format!(
            "printf hello | timeout 20 openssl s_client -quiet -no_ign_eof {version} -connect 127.0.0.1:{port} \
             -servername shop.example -CAfile {ca} -verify_return_error"
        );
        must(Command::new("sh").args(["-c", &client]));
    }
    let lines = proxy.access_lines(4);
    let resumed: Vec<_> = lines.iter().map(|line| line["tls_resumed"].as_bool()).collect();
    assert_eq!(
        resumed,
        [Some(false), Some(true), Some(false), Some(false)],
        "{lines:#?}"
    );
    assert!(lines.iter().all(|line| line["bytes_up"] == 5), "{lines:#?}");
}

#[test]
fn redis_cli_reaches_a_server_without_tls() {
    let (site, redis) = (Site::new(), Redis::start());
    let proxy = site.start(redis.address());
    let ca = site.folder().join("ca.pem");
    replace(&ca, &site.authority.certificate());
    let mut command = Command::new("redis-cli");
    command.args(["-h", "127.0.0.1", "-p", &proxy.at("tls").port().to_string(), "--tls"]);
    command
        .args(["--sni", "shop.example", "--cacert"])
        .arg(&ca)
        .args(["echo", "agua"]);
    assert_eq!(must(&mut command).trim_end(), "agua");
    assert_eq!(proxy.access_line()["sni"], "shop.example");
}
