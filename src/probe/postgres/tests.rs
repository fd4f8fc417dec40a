use tokio::net::TcpListener;

use super::*;
use crate::dial::PLAIN;

fn probe() -> PostgresProbe {
    let login = PostgresLogin {
        user: "checker".into(),
        password_file: None,
        database: "checker".into(),
    };
    PostgresProbe::new(Arc::new(PostgresCheck {
        login: Some(login),
        role: Role::Any,
        max_lag: None,
    }))
}

/// What a check makes of a server that answers its login with this, over and over; and how often it could say it.
async fn checked(answer: &[u8], times: usize) -> (io::Error, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_exact(&mut [0; SSL_REQUEST.len()]).await.unwrap();
        stream.write_all(b"N").await.unwrap();
        let mut said = 0;
        while said < times && stream.write_all(answer).await.is_ok() {
            said += 1;
        }
        said
    };
    let probe = probe();
    let (checked, said) = tokio::join!(probe.check(ServerAddr::new(address), &PLAIN), serve);
    match checked {
        Err(Failure::Io(error)) => (error, said),
        other => panic!("{other:?}"),
    }
}

/// A message of this kind, of so many bytes behind its head.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(4 + body.len()).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

#[tokio::test]
async fn a_server_that_never_stops_talking_is_not_listened_to() {
    let part_of_one_message = [b"E\x3f\xff\xff\xff".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let (_, said) = checked(&part_of_one_message, 64).await;
    assert!(said < 16, "{said} MiB: more than sockets hold");
}

#[tokio::test]
async fn a_row_that_was_not_asked_for_is_no_answer() {
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
        (columns(0), message(b'D', b"\0\0")),
        (columns(1), message(b'D', b"\0\x01\0\0\0\x01\xff")),
        (columns(1), message(b'D', b"\0\x01\xff\xff\xff\xff")), // NULL
    ];
    let ready = message(b'Z', b"I");
    for (head, row) in rows {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let login = [message(b'R', &[0; 4]), ready.clone()].concat();
        let answer = [head, row, message(b'C', b"SELECT 1\0"), ready.clone()].concat();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in [b"N".to_vec(), login, answer] {
                assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0); // a request is one write
                stream.write_all(&answer).await.unwrap();
            }
            stream
        };
        let probe = probe();
        let (checked, _stream) = tokio::join!(probe.check(ServerAddr::new(address), &PLAIN), serve);
        match checked {
            Err(Failure::Io(error)) => assert_eq!(error.to_string(), "it does not say whether it is a replica"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_server_says_is_wrong_is_told_in_its_words() {
    let (error, _) = checked(&message(b'E', b"SFATAL\0C28000\0Mnot you\0\0"), 1).await;
    assert_eq!(error.to_string(), "not you");
}

#[test]
fn only_a_lag_that_is_one_makes_a_replica_fit() {
    let mut probe = probe();
    Arc::get_mut(&mut probe.check).unwrap().max_lag = Some(Duration::from_secs(5));
    for (lag, is_fit) in [
        (Some(0.0), true),
        (Some(-3.0), true),
        (Some(5.0), true),
        (Some(5.1), false),
        (Some(f64::NAN), false),
        (Some(f64::INFINITY), false),
        (Some(1e300), false),
        (None, false),
    ] {
        assert_eq!(probe.judge(true, lag).is_ok(), is_fit, "{lag:?}");
    }
}
