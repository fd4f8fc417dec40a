use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::error::chain;

fn check() -> HttpCheck {
    HttpCheck {
        method: Method::GET,
        path: Uri::from_static("/"),
        host: None,
        headers: Vec::new(),
        expect: "200-399".parse().unwrap(),
        wrong_role: StatusList::default(),
        wrong_role_body: None,
        body: None,
        tls: None,
    }
}

fn with_body(pattern: &str) -> HttpCheck {
    HttpCheck {
        body: Some(Pattern::new(pattern).unwrap()),
        ..check()
    }
}

/// Starts a server that reads the head of each request, and then calls `answer`. Returns its address, and the heads
/// that it has read.
async fn server<F>(answer: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<Mutex<Vec<String>>>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            seen.lock().push(String::from_utf8(head).unwrap());
            tokio::spawn(answer(socket));
        }
    });
    (address, heads)
}

async fn answering(text: &'static [u8]) -> SocketAddr {
    let answer = move |mut socket: TcpStream| async move {
        let _ = socket.write_all(text).await;
        let _ = socket.shutdown().await;
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    };
    server(answer).await.0
}

async fn run(check: HttpCheck, address: SocketAddr) -> Result<CheckPass, String> {
    let target = CheckTarget::for_test(address);
    let probe = Arc::new(check).probe(target);
    let ran = timeout(Duration::from_secs(20), probe.run())
        .await
        .expect("the server has answered");
    ran.map_err(|failure| match failure {
        CheckFailure::Io(error) | CheckFailure::Shortage(error) | CheckFailure::Local(error) => chain(&error),
        CheckFailure::Down { reason, .. } => format!("down: {reason}"),
        CheckFailure::Unfit { reason, .. } => format!("unfit: {reason}"),
        CheckFailure::Refused { reason, .. } => format!("refused: {reason}"),
    })
}

#[tokio::test]
async fn the_http_status_and_wrong_role_body_decide_the_result() {
    for (status, passes) in [
        ("200 OK", true),
        ("304 Not Modified", true),
        ("404 Not Found", false),
        ("503 x", false),
    ] {
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak();
        let ran = run(check(), answering(text.as_bytes()).await).await;
        assert_eq!(ran.is_ok(), passes, "{status}: {ran:?}");
    }
    let address = answering(b"HTTP/1.1 503 Why ever\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(
        run(check(), address).await.unwrap_err(),
        "the server answers 503 Service Unavailable"
    );
    let roles = HttpCheck {
        wrong_role: "503".parse().unwrap(),
        ..check()
    };
    let unfit = "unfit: the server answers 503 Service Unavailable: it has another role, or is behind";
    assert_eq!(run(roles.clone(), address).await.unwrap_err(), unfit);
    let running = HttpCheck {
        wrong_role_body: Some(Pattern::new("\"state\": ?\"running\"").unwrap()),
        ..roles
    };
    let down = "down: the server answers 503 Service Unavailable: `\"state\": ?\"running\"` is not in the first";
    for (body, expected) in [
        ("{\"state\": \"running\", \"role\": \"replica\"}", unfit),
        ("{\"state\": \"stopped\", \"role\": \"replica\"}", down),
    ] {
        let text = format!("HTTP/1.1 503 Why ever\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak();
        let failed = run(running.clone(), answering(text.as_bytes()).await)
            .await
            .unwrap_err();
        assert!(failed.starts_with(expected), "{failed}");
    }
}

#[tokio::test]
async fn the_http_request_follows_the_configuration() {
    let ok = |mut socket: TcpStream| async move {
        let _ = socket
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
            .await;
    };
    let (address, heads) = server(ok).await;
    assert!(run(check(), address).await.is_ok());
    let configured = HttpCheck {
        method: Method::HEAD,
        path: Uri::from_static("/health?deep=1"),
        host: Some(HeaderValue::from_static("shop.example")),
        headers: [("x-probe", "1"), ("user-agent", "probe/2")]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .to_vec(),
        ..check()
    };
    assert!(run(configured, address).await.is_ok());
    let heads = heads.lock().clone();
    let host = format!("host: {address}\r\n");
    assert!(
        heads[0].starts_with("GET / HTTP/1.1\r\n") && heads[0].contains(&host),
        "{}",
        heads[0]
    );
    assert!(heads[0].contains("connection: close\r\n") && heads[0].contains("user-agent: acequia/"));
    let head = &heads[1];
    assert!(
        head.starts_with("HEAD /health?deep=1 HTTP/1.1\r\nhost: shop.example\r\n"),
        "{head}"
    );
    assert!(head.contains("x-probe: 1\r\n"), "{head}");
    assert_eq!(head.matches("user-agent").count(), 1, "{head}");
    assert!(head.contains("user-agent: probe/2\r\n"), "{head}");
}

#[tokio::test]
async fn the_body_is_searched_in_any_framing() {
    for response in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall: \xff up"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n6\r\n: \xff up\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nall: \xff up",
    ] {
        let address = answering(response).await;
        assert_eq!(
            run(with_body("^all: .* UP|(?i)up$"), address).await,
            Ok(CheckPass::default())
        );
        let missing = run(with_body("down"), address).await.unwrap_err();
        assert_eq!(missing, "`down` is not in the first 9 bytes of the body");
    }
    let truncated = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nup").await;
    let truncated = run(with_body("up"), truncated).await.unwrap_err();
    assert!(
        truncated.ends_with("end of file before message length reached"),
        "{truncated}"
    );
}

#[tokio::test]
async fn an_endless_body_is_searched_up_to_the_limit() {
    let endless = |mut socket: TcpStream| async move {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while socket.write_all(&[b'x'; 1000]).await.is_ok() {}
    };
    let (address, _) = server(endless).await;
    let missing = run(with_body("y"), address).await.unwrap_err();
    assert_eq!(missing, "`y` is not in the first 65536 bytes of the body");
    assert!(run(check(), address).await.is_ok(), "only the status is needed");
}

#[tokio::test]
async fn other_protocols_and_oversized_responses_fail() {
    let garbage = run(check(), answering(b"SSH-2.0-OpenSSH_9.6\r\n").await)
        .await
        .unwrap_err();
    assert!(garbage.starts_with("the server does not speak HTTP: "), "{garbage}");
    for part in ["A: b\r\n", "x"] {
        let endless = move |mut socket: TcpStream| async move {
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nB: ").await;
            while socket.write_all(part.as_bytes()).await.is_ok() {}
        };
        let long = run(check(), server(endless).await.0).await.unwrap_err();
        assert!(long.starts_with("the head of the response is too long"), "{long}");
    }
    for (begin, part) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"),
    ] {
        let endless = move |mut socket: TcpStream| async move {
            let _ = socket.write_all(begin.as_bytes()).await;
            while socket.write_all(part.as_bytes()).await.is_ok() {}
        };
        let long = run(with_body("y"), server(endless).await.0).await.unwrap_err();
        assert!(long.contains("the server sends more than 256 KiB"), "{long}");
    }
    let closing = run(check(), answering(b"").await).await.unwrap_err();
    assert!(
        closing.starts_with("the server closed the connection before it had answered"),
        "{closing}"
    );
}

#[tokio::test]
async fn a_server_that_speaks_first_does_not_speak_http() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(b"220 mail.example ESMTP\r\n").await;
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    });
    let reason = run(check(), address).await.unwrap_err();
    assert!(reason.contains("does not speak HTTP"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_dripping_server_is_awaited_until_the_deadline_of_the_caller() {
    let dripping = |mut socket: TcpStream| async move {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nA: ").await;
        while socket.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (address, _) = server(dripping).await;
    let target = CheckTarget::for_test(address);
    let probe = Arc::new(check()).probe(target);
    assert!(timeout(Duration::from_secs(3), probe.run()).await.is_err());
}
