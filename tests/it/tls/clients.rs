//! Other programs as clients of a listener that terminates their TLS.

use std::net::TcpStream;
use std::process::Command;

use super::site::Site;
use crate::support::authority::{Authority, replace};
use crate::support::database::{Postgres, Redis, over_direct_tls};
use crate::support::eventually;
use crate::support::nginx::Nginx;
use crate::support::process::{Port, Process, must};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::wait_for;

#[test]
fn curl_speaks_http2_through_to_a_server_without_tls() {
    let site = Site::new();
    let server = Nginx::start("http2");
    let proxy = Proxy::start(&site.config(server.address(), "alpn = [\"h2\"]", ""));
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    let answer = must(
        Command::new("curl")
            .args(["-sS", "--http2", "--cacert"])
            .arg(site.directory().join("ca.pem"))
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
fn mosquitto_publishes_and_subscribes_with_a_client_certificate() {
    let (site, clients, port) = (Site::new(), Authority::new("clients"), Port::keep());
    let path = |name: &str| site.directory().join(name).display().to_string();
    replace(&site.directory().join("ca.pem"), &site.authority.certificate());
    replace(&site.directory().join("clients.pem"), &clients.certificate());
    clients.issue(&["meter.example"]).write(site.directory(), "meter");
    let broker = format!("listener {} 127.0.0.1\nallow_anonymous true\n", port.number());
    std::fs::write(path("mosquitto.conf"), broker).unwrap();
    let _broker = Process::start(Command::new("mosquitto").args(["-c", &path("mosquitto.conf")]));
    eventually("mosquitto listens", || TcpStream::connect(port.address).is_ok());
    let auth = format!("client_auth = {{ ca_file = {} }}", site.file("clients.pem"));
    let proxy = Proxy::start(&site.config(port.address, &auth, ""));
    let client = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        // `--insecure`: the address is not a name of the certificate, whose authority is still verified.
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
fn openssl_and_python_are_served_and_python_resumes_its_session() {
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
    let ca = site.directory().join("ca.pem");
    replace(&ca, &site.authority.certificate());
    let (ca, port) = (ca.display().to_string(), proxy.at("tls").port().to_string());
    let printed = must(Command::new("python3").args(["-c", PYTHON, &port, &ca]));
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["hello TLSv1.3 False", "hello TLSv1.3 True"]
    );
    for version in ["-tls1_2", "-tls1_3"] {
        // `-no_ign_eof`: the client ends its stream at the end of its input.
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
    let ca = site.directory().join("ca.pem");
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

#[test]
fn libpq_with_direct_tls_reaches_a_server_without_tls() {
    let (site, server) = (Site::new(), Postgres::start());
    let proxy = Proxy::start(&site.config(server.address(), "alpn = [\"postgresql\"]", ""));
    let ca = site.directory().join("ca.pem");
    replace(&ca, &site.authority.certificate());
    let Some(port) = over_direct_tls(proxy.at("tls"), "shop.example", &ca, "SELECT inet_server_port()") else {
        return; // psycopg is not installed
    };
    assert_eq!(port, server.address().port().to_string());
    let line = proxy.access_line();
    assert_eq!((&line["tls"], &line["sni"]), (&"1.3".into(), &"shop.example".into()));
    assert_eq!(line["ending"], "client_closed");
}

/// A server that sends 1 MB to each client, and then sends all messages back. It closes after the message `close`, and
/// prints the close code of each connection.
const WEBSOCKET_SERVER: &str = "
import asyncio, websockets
async def talk(socket):
    await socket.send(bytes(1_000_000))
    while (message := await socket.recv()) != 'close':
        await socket.send(message)
    await socket.close(4001, 'as you wish')
async def serve(socket):
    try:
        await talk(socket)
    except websockets.ConnectionClosed:
        pass
    print('closed', socket.close_code, flush=True)
async def main():
    server = await websockets.serve(serve, '127.0.0.1', 0)
    print('port', server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Future()
asyncio.run(main())
";

const WEBSOCKET_CLIENT: &str = "
import asyncio, ssl, sys, websockets
context = ssl.create_default_context(cafile=sys.argv[2])
context.set_alpn_protocols(['h2', 'http/1.1'])
def connect():
    at = {'host': '127.0.0.1', 'port': int(sys.argv[1])}
    return websockets.connect('wss://shop.example/', ssl=context, server_hostname='shop.example', **at)
async def main():
    async with connect() as socket:
        print(socket.transport.get_extra_info('ssl_object').selected_alpn_protocol())
        print(len(await socket.recv()))
        for message in ['hello', bytes(500_000)]:
            await socket.send(message)
            print(await socket.recv() == message)
    async with connect() as socket:
        await socket.recv()
        await socket.send('close')
        await socket.wait_closed()
        print(socket.close_code, socket.close_reason)
asyncio.run(main())
";

#[test]
fn websocket_messages_pass_both_ways_and_either_side_closes() {
    let python = "/usr/bin/python3"; // Debian's Python has the package `websockets`
    let site = Site::new();
    let server = Process::start(Command::new(python).args(["-c", WEBSOCKET_SERVER]));
    let port = wait_for("the server listens", || {
        let lines = server.stdout.lines();
        lines.first()?.strip_prefix("port ")?.parse::<u16>().ok()
    });
    let proxy = Proxy::start(&site.config(([127, 0, 0, 1], port).into(), "alpn = [\"http/1.1\"]", ""));
    let ca = site.directory().join("ca.pem");
    replace(&ca, &site.authority.certificate());
    let mut client = Command::new(python);
    client
        .args(["-c", WEBSOCKET_CLIENT, &proxy.at("tls").port().to_string()])
        .arg(&ca);
    assert_eq!(must(&mut client), "http/1.1\n1000000\nTrue\nTrue\n4001 as you wish\n");
    eventually("the server has seen both connections close", || {
        server.stdout.lines()[1..] == ["closed 1000", "closed 4001"]
    });
    let lines = proxy.access_lines(2);
    let is_clean_ending = |line: &serde_json::Value| {
        ["client_closed", "server_closed"]
            .map(Into::into)
            .contains(&line["ending"])
    };
    assert!(lines.iter().all(is_clean_ending), "{lines:#?}");
}
