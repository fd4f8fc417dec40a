use tokio::net::TcpListener;

use super::*;

fn probe(listener: &TcpListener) -> PostgresProbe {
    let login = PostgresLogin {
        account: PasswordLogin {
            user: "checker".into(),
            password_file: None,
        },
        database: "checker".into(),
    };
    let check = PostgresCheck { login: Some(login) };
    let target = CheckTarget::for_test(listener.local_addr().unwrap());
    PostgresProbe::new(Arc::new(check), target)
}

/// Checks a server that answers the login with `answer`, sent at most `times` times. Returns the error of the check,
/// and how many answers were sent.
async fn checked(answer: &[u8], times: usize) -> (String, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        let mut sent = 0;
        while sent < times && stream.write_all(answer).await.is_ok() {
            sent += 1;
        }
        sent
    };
    let probe = probe(&listener);
    let (checked, sent) = tokio::join!(probe.connect_and_ask(), serve);
    match checked {
        Err(CheckFailure::Io(error)) => (error.to_string(), sent),
        Err(CheckFailure::Refused { reason, .. }) => (reason, sent),
        other => panic!("{other:?}"),
    }
}

/// A message of the protocol: its kind, its length, its body.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

#[tokio::test]
async fn a_server_that_requests_a_clear_text_password_accepts_sessions_and_does_not_get_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&password, "secret\n").unwrap();
    let mut probe = probe(&listener);
    let mut check = PostgresCheck::clone(&probe.check);
    let login = check.login.as_mut().unwrap();
    login.account.password_file = Some(password.path().to_owned());
    probe.check = Arc::new(check);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; 8]).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        stream.write_all(&message(b'R', &[0, 0, 0, 3])).await.unwrap();
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await; // it may be reset
        String::from_utf8_lossy(&received).into_owned()
    };
    let checked = async {
        let result = probe.connect_and_ask().await;
        drop(probe);
        result
    };
    let (checked, received) = tokio::join!(checked, serve);
    let Err(CheckFailure::Refused {
        reason,
        accepts_sessions: true,
    }) = checked
    else {
        panic!("{checked:?}")
    };
    assert!(reason.contains("scram-sha-256"), "{reason}");
    assert!(
        received.contains("checker") && !received.contains("secret"),
        "{received}"
    );
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let part_of_one_message = [b"E\x3f\xff\xff\xff".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let (_, sent) = checked(&part_of_one_message, 64).await;
    assert!(sent < 16, "{sent} MiB: more than sockets hold");
}

#[tokio::test]
async fn a_row_that_does_not_fit_the_query_fails_the_check() {
    let columns = |count: u8| {
        message(
            b'T',
            &[
                &[0, count][..],
                &[b"c\0".as_slice(), &[0; 18]].concat().repeat(count.into()),
            ]
            .concat(),
        )
    };
    let rows = [
        (columns(0), message(b'D', b"\0\0")),                   // no value
        (columns(1), message(b'D', b"\0\x01\0\0\0\x01\xff")),   // not UTF-8
        (columns(1), message(b'D', b"\0\x01\xff\xff\xff\xff")), // NULL
    ];
    let ready = message(b'Z', b"I");
    for (head, row) in rows {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let login = [message(b'R', &[0; 4]), ready.clone()].concat();
        let answer = [head, row, message(b'C', b"SELECT 1\0"), ready.clone()].concat();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for reply in [b"N".to_vec(), login] {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0); // a request is one write
                stream.write_all(&reply).await.unwrap();
            }
            let queries: usize = [ROLE, POSITION, SYSTEM, RESTARTPOINT]
                .iter()
                .map(|query| query.len() + 6) // a kind, a length of 4 bytes, and a NUL behind the query
                .sum();
            stream.read_exact(&mut vec![0; queries]).await.unwrap();
            let nothing = [message(b'C', b"SELECT 0\0"), ready.clone()].concat();
            stream.write_all(&[answer, nothing.repeat(3)].concat()).await.unwrap();
            stream
        };
        let probe = probe(&listener);
        let (checked, _stream) = tokio::join!(probe.connect_and_ask(), serve);
        match checked {
            Err(CheckFailure::Io(error)) => {
                assert_eq!(
                    error.to_string(),
                    "the answer does not say whether the server is a replica"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn denied_queries_are_tried_again_after_a_failed_check() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let probe = probe(&listener);
    drop(listener);
    probe.denials.lock().deny_for_test(DeniableQuestion::System);
    assert!(probe.run().await.is_err());
    assert!(probe.denials.lock().may_ask(DeniableQuestion::System));
}

#[tokio::test]
async fn the_code_of_an_error_says_whether_a_server_accepts_sessions_and_the_message_is_quoted() {
    // `None`: the server has ended the session of the check, which is reported as an IO error.
    for (code, accepts_sessions) in [
        ("53300", Some(true)),
        ("53200", Some(true)),
        ("28P01", Some(true)),
        ("3D000", Some(true)),
        ("55000", Some(true)),
        ("08P01", Some(true)),
        ("57P03", Some(false)),
        ("58P01", Some(false)),
        ("F0000", Some(false)),
        ("XX000", Some(false)),
        ("57P01", None),
        ("57P02", None),
    ] {
        let error = format!("SFATAL\0C{code}\0Mnot you\0\0"); // S: severity, C: code, M: message
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream
                .write_all(&[b"N", &*message(b'E', error.as_bytes())].concat())
                .await
                .unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let probe = probe(&listener);
        let (checked, ()) = tokio::join!(probe.connect_and_ask(), serve);
        let reported = match checked {
            Err(CheckFailure::Refused {
                reason,
                accepts_sessions,
            }) => (reason, Some(accepts_sessions)),
            Err(CheckFailure::Io(error)) => (error.to_string(), None),
            other => panic!("{code}: {other:?}"),
        };
        assert_eq!(reported, ("not you".to_owned(), accepts_sessions), "{code}");
    }
}

#[test]
fn only_an_unambiguous_answer_decides_the_role() {
    assert_eq!(read_role(Some("t")).unwrap(), Role::Replica);
    assert_eq!(read_role(Some("f")).unwrap(), Role::Primary);
    for other in [None, Some(""), Some("banana"), Some("F")] {
        assert!(read_role(other).is_err(), "{other:?}");
    }
}
