//! Raw requests to the admin API, without an HTTP client that could correct them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use serde_json::Value;

use super::PATIENCE;
use super::proxy::Proxy;
use super::server::Server;

/// A configuration with the names that docs/api.md uses. `admin`: the lines of the section `[admin]`.
pub fn config(servers: &[&Server], admin: &str) -> String {
    let named = |(number, server): (usize, &&Server)| {
        let name = ["big", "small"][number];
        format!("{{ address = \"{}\", name = \"{name}\" }}", server.address)
    };
    let servers: Vec<_> = servers.iter().enumerate().map(named).collect();
    format!(
        "[admin]\n{admin}\n[guards.fair]\nsessions = 5000\n\
         [listeners.https]\nbind = \"127.0.0.1:0\"\npool = \"shop\"\nguards = \"fair\"\n\
         [[listeners.https.routes]]\nname = \"insiders\"\nsni = \"shop.example.com\"\nalpn = [\"h2\"]\n\
         from = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\npool = \"shop\"\n\
         [[listeners.https.routes]]\nsni = \"*.internal.example.com\"\nrefuse = true\n\
         [pools.shop]\nservers = [{}]",
        servers.join(", ")
    )
}

/// Starts acequia with [`config`]; the admin API also listens on a free TCP port.
pub fn start(servers: &[&Server], admin: &str) -> Proxy {
    Proxy::start(&config(servers, &format!("bind = \"127.0.0.1:0\"\n{admin}")))
}

/// Sends a request, and reads until acequia closes the connection. Returns the status and the body of the answer.
pub fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{answer:?} to {request}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub fn request(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let host = if headers.contains("Host:") {
        ""
    } else {
        "Host: localhost\r\n"
    };
    format!(
        "{method} {path} HTTP/1.1\r\n{host}{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks for a stream of events. `None`: it is refused.
pub fn event_stream<S: Read + Write>(mut stream: S) -> Option<S> {
    stream
        .write_all(request("GET", "/api/v1/events", &[], "").as_bytes())
        .unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).unwrap();
    (begin == *b"HTTP/1.1 200").then_some(stream)
}

/// A request over TCP.
pub fn tcp(proxy: &Proxy, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let stream = TcpStream::connect(proxy.admin()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    exchange(stream, &request(method, path, headers, body))
}

/// A request with JSON over the Unix socket.
pub fn unix(proxy: &Proxy, method: &str, path: &str, body: &str) -> (u16, Value) {
    let stream = UnixStream::connect(proxy.directory().join("acequia/admin.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (status, body) = exchange(
        stream,
        &request(method, path, &["Content-Type: application/json"], body),
    );
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body}")))
}
