use std::time::Duration;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::*;

const LIMITS: SniffLimits = SniffLimits {
    hello_timeout: Duration::from_secs(5),
    hello_bytes_max: 64 << 10,
};

fn captured(file: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/hello/{file}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn memory() -> Arc<HelloMemory> {
    HelloMemory::new(1 << 30)
}

async fn sniffed(server: &mut DuplexStream, bytes_max: usize) -> Result<Sniffed, SniffError> {
    let limits = SniffLimits {
        hello_bytes_max: bytes_max,
        ..LIMITS
    };
    sniff(server, &limits, Instant::now(), &memory(), None).await
}

async fn sniffed_of(sent: &[u8], bytes_max: usize) -> Result<Sniffed, SniffError> {
    let (mut client, mut server) = duplex(128 << 10);
    client.write_all(sent).await.unwrap();
    sniffed(&mut server, bytes_max).await
}

#[tokio::test]
async fn the_bytes_read_are_returned_unchanged() {
    let mut sent = captured("chromium");
    sent.extend_from_slice(b"early data");
    for piece_bytes in [1, 7, 1400, sent.len()] {
        let (mut client, mut server) = duplex(piece_bytes);
        // The server's end is dropped with `reading`, so that the client does not wait for bytes that are no longer
        // read.
        let reading = async move { sniffed(&mut server, LIMITS.hello_bytes_max).await };
        let (sniffed, _) = tokio::join!(reading, client.write_all(&sent));
        let sniffed = sniffed.unwrap();
        assert_eq!(
            sniffed.hello().unwrap().server_name().unwrap().as_str(),
            "shop.example.com"
        );
        assert!(sniffed.first.as_slice().len() >= sent.len() - b"early data".len());
        assert!(
            sent.starts_with(sniffed.first.as_slice()),
            "in pieces of {piece_bytes} bytes"
        );
    }
}

#[tokio::test]
async fn one_byte_proves_that_a_client_does_not_speak_tls() {
    let (mut client, mut server) = duplex(64);
    client.write_all(b"\0").await.unwrap();
    let sniffed = sniffed(&mut server, LIMITS.hello_bytes_max).await.unwrap();
    assert!(sniffed.hello().is_none());
    assert_eq!(sniffed.first.as_slice(), b"\0");
}

#[tokio::test]
async fn a_hello_of_exactly_hello_max_bytes_is_read_and_a_longer_one_is_not() {
    for file in ["openssl-records", "chromium"] {
        let sent = captured(file);
        assert_eq!(sniffed_of(&sent, sent.len()).await.unwrap().first.into_vec(), sent);
        let error = sniffed_of(&sent, sent.len() - 1).await.unwrap_err();
        assert!(matches!(error.reason, SniffFailure::TooLong), "{error}");
        assert!(error.bytes_read < sent.len());
    }
}

#[tokio::test]
async fn at_most_hello_max_bytes_are_held() {
    let sent = [captured("openssl"), vec![0; 100_000]].concat();
    let sniffed = sniffed_of(&sent, 400).await.unwrap();
    assert_eq!(*sniffed.first.as_slice(), sent[..400]);
    let drip = captured("tlslite-one-byte-records");
    let memory = memory();
    let mut first = FirstBytes::new(&memory, Instant::now());
    for byte in drip.chunks(1) {
        first.push(byte, drip.len());
        assert!(memory.held() <= drip.len());
    }
    assert_eq!(first.into_vec(), drip);
}

#[tokio::test]
async fn a_client_is_refused_if_hello_max_bytes_do_not_prove_what_it_wants() {
    let error = sniffed_of(b"\x16\x03\x01\x20\0\x01", 6).await.unwrap_err();
    assert!(matches!(error.reason, SniffFailure::TooLong), "{error}");
    assert_eq!(error.bytes_read, 6);
}

#[tokio::test]
async fn the_error_of_a_malformed_hello_says_why() {
    let error = sniffed_of(b"\x16\x03\x01\0\0", LIMITS.hello_bytes_max)
        .await
        .unwrap_err();
    assert!(
        matches!(error.reason, SniffFailure::Invalid(malformed) if malformed.what == "an empty handshake record"),
        "{error}"
    );
    assert_eq!(error.bytes_read, 5);
}

#[tokio::test]
async fn an_early_close_is_distinguished_from_a_failure() {
    for sent in [b"".as_slice(), b"\x16\x03\x01"] {
        let (mut client, mut server) = duplex(64);
        client.write_all(sent).await.unwrap();
        drop(client);
        let error = sniffed(&mut server, LIMITS.hello_bytes_max).await.unwrap_err();
        assert!(matches!(error.reason, SniffFailure::LeftEarly), "{error}");
        assert_eq!(error.bytes_read, sent.len());
    }
}

#[tokio::test]
async fn a_reset_is_an_error_of_the_socket() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    crate::socket::reset(client);
    let error = sniff(&mut server, &LIMITS, Instant::now(), &memory(), None)
        .await
        .unwrap_err();
    assert!(matches!(error.reason, SniffFailure::Io(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_absolute_and_counts_from_accept() {
    let accepted_at = Instant::now();
    tokio::time::advance(Duration::from_secs(2)).await; // from accept until the session first runs
    let (mut client, mut server) = duplex(64);
    let drip = async {
        for byte in captured("openssl").chunks(1) {
            client.write_all(byte).await.unwrap();
            tokio::time::sleep(LIMITS.hello_timeout * 4 / 5).await;
        }
    };
    let memory = memory();
    tokio::select! {
        sniffed = sniff(&mut server, &LIMITS, accepted_at, &memory, None) => {
            let error = sniffed.unwrap_err();
            assert!(matches!(error.reason, SniffFailure::TooSlow), "{error}");
            assert_eq!(error.bytes_read, 1); // the second byte comes at 6 s
        }
        () = drip => panic!("the client was allowed to send it all"),
    }
    let late = accepted_at.elapsed() - LIMITS.hello_timeout;
    assert!(late <= Duration::from_millis(1), "{late:?}"); // the resolution of the timer
}

#[tokio::test(start_paused = true)]
async fn a_hello_just_before_the_deadline_is_in_time_and_one_just_after_is_not() {
    for (at, in_time) in [(4_998, true), (5_002, false)] {
        let (mut client, mut server) = duplex(4096);
        let send = async {
            tokio::time::sleep(Duration::from_millis(at)).await;
            client.write_all(&captured("openssl")).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            sniffed = sniffed(&mut server, LIMITS.hello_bytes_max) => assert_eq!(sniffed.is_ok(), in_time, "at {at} ms"),
            () = send => unreachable!("it waits for ever"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_alert_depends_on_the_failure_and_on_whether_the_client_speaks_tls() {
    let user_canceled = Some(Alert::UserCanceled);
    for (sent, alert) in [
        (b"".as_slice(), None),
        (b"\x16", None), // not yet certain to be TLS
        (b"\x16\x03", user_canceled),
        (b"\x16\x03\x01\0\x05\x01", user_canceled),
    ] {
        let (mut client, mut server) = duplex(64);
        client.write_all(sent).await.unwrap();
        let error = sniffed(&mut server, 64).await.unwrap_err();
        assert!(matches!(error.reason, SniffFailure::TooSlow), "{error}");
        assert_eq!(error.alert(), alert, "after {sent:?}");
    }
    for (sent, alert) in [
        (
            b"\x16\x03\x01\0\x09\x01\xff\xff\xff".as_slice(),
            Alert::IllegalParameter,
        ),
        (b"\x16\x03\x01\0\x05\x02", Alert::UnexpectedMessage),
        (b"\x16\x03\x01\xff\xff", Alert::RecordOverflow),
    ] {
        assert_eq!(
            sniffed_of(sent, 512).await.unwrap_err().alert(),
            Some(alert),
            "{sent:?}"
        );
    }
    let (client, mut server) = duplex(64);
    drop(client);
    let error = sniffed(&mut server, 64).await.unwrap_err();
    assert_eq!(error.alert(), None, "the client is gone");
}

#[tokio::test(start_paused = true)]
async fn the_client_that_waited_longest_is_evicted_when_hello_memory_is_used_up() {
    let memory = HelloMemory::new(100);
    let (first_at, second_at) = (Instant::now(), Instant::now() + Duration::from_millis(1));
    let (mut first_client, mut first_server) = duplex(128);
    let (mut second_client, mut second_server) = duplex(128);
    first_client.write_all(&captured("openssl")[..60]).await.unwrap();
    let sniff_first = sniff(&mut first_server, &LIMITS, first_at, &memory, None);
    let sniff_second = async {
        second_client.write_all(&captured("openssl")[..60]).await.unwrap();
        tokio::select! {
            sniffed = sniff(&mut second_server, &LIMITS, second_at, &memory, None) => panic!("{sniffed:?}"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    let (evicted, ()) = tokio::join!(sniff_first, sniff_second);
    let error = evicted.unwrap_err();
    assert!(matches!(error.reason, SniffFailure::TooSlow), "{error}"); // the same error as after `hello_timeout`
    assert_eq!((error.bytes_read, error.alert()), (60, Some(Alert::UserCanceled)));
    assert_eq!(memory.held(), 0, "both are gone");
}

/// Finds the first byte, whatever it is.
struct FirstByte;

impl PrefaceReader for FirstByte {
    type Found = u8;

    fn inspect(&mut self, bytes: &[u8]) -> Inspection<u8> {
        bytes
            .first()
            .map_or(Inspection::NeedMore, |byte| Inspection::Found(*byte))
    }
}

#[tokio::test(start_paused = true)]
async fn readers_in_turn_share_the_bytes_and_the_deadline() {
    let whole = captured("openssl");
    let accepted_at = Instant::now();
    for (sent, is_whole) in [(&whole[..], true), (&whole[..60], false)] {
        let (mut client, mut server) = duplex(4096);
        let memory = memory();
        let mut preface = Preface::new(&mut server, &LIMITS, accepted_at, &memory, None);
        client.write_all(&sent[..1]).await.unwrap();
        assert_eq!(preface.read(&mut FirstByte).await.unwrap(), sent[0]);
        client.write_all(&sent[1..]).await.unwrap();
        let hello = preface.read(&mut HelloReader::new(LIMITS.hello_bytes_max)).await;
        assert_eq!(matches!(hello, Ok(Opening::Hello(_))), is_whole, "{hello:?}");
        assert_eq!(preface.into_bytes().as_slice(), sent);
    }
    let late = accepted_at.elapsed() - LIMITS.hello_timeout;
    assert!(late <= Duration::from_millis(1), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_head_must_arrive_within_5_seconds_of_accept() {
    let accepted_at = Instant::now();
    let (mut client, mut server) = duplex(64);
    let drip = async {
        client.write_all(b"GET / HTTP/1.1\r\nA: ").await.unwrap();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            client.write_all(b"b").await.unwrap();
        }
    };
    let memory = memory();
    let error = tokio::select! {
        read = sniff_http(&mut server, accepted_at, &memory, None) => read.unwrap_err(),
        () = drip => unreachable!("it never ends"),
    };
    assert!(matches!(error.reason, SniffFailure::TooSlow), "{error}");
    assert_eq!(accepted_at.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn a_request_of_exactly_16_kib_is_read_and_a_longer_one_is_not() {
    for (bytes, is_read) in [(16 << 10, true), ((16 << 10) + 1, false)] {
        let (begin, end) = ("GET / HTTP/1.1\r\nHost: a.example\r\nA: ", "\r\n\r\n");
        let sent = format!("{begin}{}{end}", "x".repeat(bytes - begin.len() - end.len()));
        let (mut client, mut server) = duplex(32 << 10);
        client.write_all(sent.as_bytes()).await.unwrap();
        let memory = memory();
        let read = sniff_http(&mut server, Instant::now(), &memory, None).await;
        assert_eq!(read.is_ok(), is_read, "{read:?}");
        drop(read);
        assert_eq!(memory.held(), 0);
    }
}
