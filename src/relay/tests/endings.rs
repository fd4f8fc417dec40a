//! Half-closes and resets are forwarded, and the relay reports how it ended.

use super::*;

#[tokio::test]
async fn the_side_that_finishes_first_is_reported() {
    for first in [Side::Client, Side::Server] {
        let mut session = Session::new().await;
        let (early, late) = match first {
            Side::Client => (&mut session.client, &mut session.server),
            Side::Server => (&mut session.server, &mut session.client),
        };
        early.write_all(b"everything").await.unwrap();
        early.shutdown().await.unwrap();
        let (received, end) = read_all(late).await;
        assert_eq!((received.as_slice(), end.is_ok()), (&b"everything"[..], true));
        late.write_all(&[7; 100]).await.unwrap();
        assert_eq!(
            read_exactly(early, 100).await,
            [7; 100],
            "expected the other half to continue"
        );
        late.shutdown().await.unwrap();
        assert!(read_all(early).await.1.is_ok());
        assert_eq!(session.closed().await, Closed::Finished(first));
    }
}

#[tokio::test]
async fn a_half_close_right_after_the_request_loses_no_byte_of_either_side() {
    let mut session = Session::with(Setup {
        first: vec![1; 700],
        ..Setup::default()
    })
    .await;
    session.client.write_all(&[2; 30_000]).await.unwrap();
    session.client.shutdown().await.unwrap();
    let (request, _) = read_all(&mut session.server).await;
    assert!(request == [vec![1; 700], vec![2; 30_000]].concat());
    let answer = vec![3; 1 << 20];
    let (mut client, mut server) = (session.client, session.server);
    let answered = tokio::spawn(async move {
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
        server
    });
    let (received, end) = read_all(&mut client).await;
    assert!(received == vec![3; 1 << 20] && end.is_ok());
    drop(answered.await.unwrap());
    assert_eq!(within(session.relay).await.unwrap(), Closed::Finished(Side::Client));
}

#[tokio::test]
async fn the_end_of_an_answer_reaches_a_client_with_a_tiny_buffer() {
    let buffers = Buffers {
        outer: Some(2_048), // of the client and of the server
        inner: None,
    };
    let mut session = Session::with(Setup {
        buffers,
        ..Setup::default()
    })
    .await;
    let mut server = session.server;
    let answered = tokio::spawn(async move {
        let answer: Vec<u8> = (0..1_u32 << 18).flat_map(u32::to_be_bytes).collect();
        server.write_all(&answer).await.unwrap();
        server.shutdown().await.unwrap();
        (server, answer)
    });
    let (received, end) = read_all(&mut session.client).await;
    let (_server, answer) = answered.await.unwrap();
    assert!(received == answer && end.is_ok());
}

#[tokio::test]
async fn bytes_sent_before_a_server_reset_are_delivered_before_the_reset() {
    for (outer, receive_buffer) in [(None, None), (Some(2_048), None), (Some(2_048), Some(4_096))] {
        let mut session = Session::with(Setup {
            buffers: Buffers { outer, inner: None },
            ..Setup::default()
        })
        .await;
        if let Some(bytes) = receive_buffer {
            SockRef::from(&session.client).set_recv_buffer_size(bytes).unwrap();
        }
        session.server.write_all(&[5; 50_000]).await.unwrap();
        // A reset would discard what is still in the server's send queue.
        delivered(&session.server).await;
        reset(session.server);
        let (received, end) = read_all(&mut session.client).await;
        assert_eq!(received.len(), 50_000);
        assert_reset(&end);
        assert_eq!(
            within(session.relay).await.unwrap(),
            Closed::Broke(Side::Server, Fault::Reset)
        );
    }
}

#[tokio::test]
async fn a_server_reset_after_a_complete_answer_does_not_reset_the_client() {
    let mut session = Session::with(Setup {
        buffers: Buffers {
            outer: Some(4_096),
            inner: Some(4_096),
        },
        ..Setup::default()
    })
    .await;
    session.client.write_all(b"nobody reads this").await.unwrap();
    within(session.server.readable()).await.unwrap();
    let mut server = session.server;
    let answered = tokio::spawn(async move {
        server.write_all(&[6; 20_000]).await.unwrap();
        server.shutdown().await.unwrap();
        delivered(&server).await;
        drop(server); // with unread bytes: the kernel sends a reset
    });
    // The client starts to read only after the relay has read some of the answer.
    let traffic = Arc::clone(&session.traffic);
    within(async {
        while traffic.down.bytes() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (received, end) = read_all(&mut session.client).await;
    within(answered).await.unwrap();
    assert_eq!(received.len(), 20_000);
    assert!(end.is_ok(), "the answer was complete: {end:?}");
}

#[tokio::test]
async fn a_client_reset_resets_the_server() {
    let mut session = Session::new().await;
    session.client.write_all(b"hello").await.unwrap();
    read_exactly(&mut session.server, 5).await;
    reset(session.client);
    sees_reset(&session.server).await;
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::Broke(Side::Client, Fault::Reset)
    );
}

#[tokio::test]
async fn a_client_reset_is_noticed_while_the_server_does_not_read() {
    let mut session = Session::new().await;
    assert!(fill(&mut session.client).await > 0);
    reset(session.client);
    sees_reset(&session.server).await;
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::Broke(Side::Client, Fault::Reset)
    );
}

#[tokio::test]
async fn a_reset_by_a_client_that_has_ended_its_stream_counts_as_closed_by_the_client() {
    let mut session = Session::new().await;
    session.client.shutdown().await.unwrap();
    assert!(read_all(&mut session.server).await.1.is_ok());
    session.server.write_all(b"answer").await.unwrap();
    read_exactly(&mut session.client, 6).await;
    reset(session.client);
    sees_reset(&session.server).await;
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::ResetAfterEnd(Side::Client)
    );
}

#[tokio::test]
async fn a_client_reset_without_a_fin_counts_as_closed_by_the_client_only_after_a_close_notify() {
    // A record as long as an encrypted alert of TLS 1.3.
    let mut close_notify = vec![0x17, 3, 3, 0, 19];
    close_notify.resize(24, 7);
    let no_record = &close_notify[1..];
    for (last, closed) in [
        (&close_notify[..], Closed::ResetAfterEnd(Side::Client)),
        (no_record, Closed::Broke(Side::Client, Fault::Reset)),
    ] {
        let mut session = Session::new().await;
        session.client.write_all(last).await.unwrap();
        assert_eq!(read_exactly(&mut session.server, last.len()).await, last);
        reset(session.client);
        sees_reset(&session.server).await;
        assert_eq!(within(session.relay).await.unwrap(), closed);
    }
}

#[tokio::test]
async fn a_client_reset_is_noticed_while_the_client_does_not_read() {
    let mut session = Session::new().await;
    assert!(fill(&mut session.server).await > 0);
    reset(session.client);
    sees_reset(&session.server).await;
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::Broke(Side::Client, Fault::Reset)
    );
}

#[tokio::test]
async fn a_server_reset_is_noticed_while_both_directions_are_blocked() {
    let mut session = Session::new().await;
    fill(&mut session.client).await;
    fill(&mut session.server).await;
    reset(session.server);
    let (_, end) = read_all(&mut session.client).await;
    assert_reset(&end);
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::Broke(Side::Server, Fault::Reset)
    );
}

/// Yields so often that the relay has done all that it can do without a further event.
async fn let_the_relay_run() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_client_reset_ends_delivery_after_a_server_reset() {
    let mut session = Session::new().await;
    fill(&mut session.server).await;
    reset(session.server);
    let_the_relay_run().await;
    assert!(!session.relay.is_finished());
    reset(session.client);
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::Broke(Side::Client, Fault::Reset)
    );
}

#[tokio::test]
async fn a_cut_ends_the_relay_at_once_in_every_state() {
    #[derive(Debug)]
    enum State {
        Idle,
        Blocked,
        HalfClosed,
        Delivering,
    }
    for state in [State::Idle, State::Blocked, State::HalfClosed, State::Delivering] {
        let mut session = Session::new().await;
        match state {
            State::Idle => {}
            State::Blocked => assert!(fill(&mut session.client).await > 0),
            State::HalfClosed => session.client.shutdown().await.unwrap(),
            State::Delivering => {
                assert!(fill(&mut session.server).await > 0);
                let unused = connected(None, None).await.0;
                reset(std::mem::replace(&mut session.server, unused));
            }
        }
        let_the_relay_run().await;
        assert!(!session.relay.is_finished(), "{state:?}");
        session.cut.cancel();
        let began = Instant::now();
        assert_eq!(session.closed().await, Closed::Cut, "{state:?}");
        assert!(began.elapsed() < DELIVERY_TIMEOUT, "{state:?}");
    }
}

/// The client stops reading when the server's FIN has arrived. The relay has not read all bytes before the FIN then.
#[tokio::test]
async fn the_end_of_the_server_is_known_although_its_bytes_are_still_unread() {
    let mut session = Session::with(Setup {
        buffers: Buffers {
            outer: Some(4_096),
            inner: Some(128 << 10),
        },
        ..Setup::default()
    })
    .await;
    let sent = fill(&mut session.server).await;
    session.server.shutdown().await.unwrap(); // the FIN arrives once there is room for the bytes before it
    let (mut taken, traffic) = (0, Arc::clone(&session.traffic));
    let ended = async || {
        while !traffic.down.has_ended() {
            tokio::task::yield_now().await;
        }
    };
    while timeout(Duration::from_millis(20), ended()).await.is_err() {
        taken += read_exactly(&mut session.client, 8 << 10).await.len();
    }
    let read = session.traffic.down.bytes() as usize;
    assert!(read < sent, "expected unread bytes, got all {sent}");
    let (received, end) = read_all(&mut session.client).await;
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(received.len() + taken, sent);
}
