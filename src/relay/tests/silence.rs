//! The bounds on silence. In real time: a paused clock would run ahead of what is in the sockets.

use tokio::time::{interval, sleep};

use super::*;

/// Short enough to wait for, long against the pauses of a busy machine.
const LIMIT: Duration = Duration::from_millis(800);

/// Often against [`LIMIT`].
const TRICKLE: Duration = Duration::from_millis(80);

const IDLE: RelayLimits = RelayLimits {
    idle_timeout: Some(LIMIT),
    half_close_timeout: None,
};

const HALF_CLOSE: RelayLimits = RelayLimits {
    idle_timeout: None,
    half_close_timeout: Some(LIMIT),
};

async fn limited(limits: RelayLimits) -> Session {
    Session::with(Setup {
        limits,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn silence_ends_it_in_an_orderly_way() {
    let mut session = limited(IDLE).await;
    session.client.write_all(b"once").await.unwrap();
    read_some(&mut session.server, 4).await;
    let began = Instant::now();
    assert!(read_all(&mut session.client).await.1.is_ok());
    assert!(read_all(&mut session.server).await.1.is_ok());
    assert!(began.elapsed() > LIMIT / 2);
    assert_eq!(session.closed().await, Closed::Idle(Pending::Nothing));
}

#[tokio::test]
async fn silence_with_bytes_on_the_way_is_a_cut() {
    let mut session = limited(IDLE).await;
    assert!(fill(&mut session.client).await > 0);
    assert_eq!(within(&mut session.relay).await.unwrap(), Closed::Idle(Pending::Bytes));
    assert_reset(&read_all(&mut session.server).await.1);
}

#[tokio::test]
async fn bytes_that_only_the_kernel_still_holds_are_on_the_way_too() {
    let mut session = limited(IDLE).await;
    // More than the client takes, less than the socket before it: the relay itself holds nothing.
    let bytes = {
        let room = SockRef::from(&session.client).recv_buffer_size().unwrap();
        vec![4; room * 2]
    };
    within(session.server.write_all(&bytes)).await.unwrap();
    assert_eq!(within(&mut session.relay).await.unwrap(), Closed::Idle(Pending::Bytes));
}

#[tokio::test]
async fn who_trickles_is_not_idle() {
    for limits in [IDLE, HALF_CLOSE] {
        let mut session = limited(limits).await;
        session.client.shutdown().await.unwrap();
        let mut ticks = interval(TRICKLE);
        for _ in 0..25 {
            ticks.tick().await;
            session.server.write_all(b".").await.unwrap();
        }
        assert!(!session.relay.is_finished());
        assert_eq!(read_some(&mut session.client, 25).await, [b'.'; 25]);
        let closed = match limits {
            IDLE => Closed::Idle(Pending::Nothing),
            _ => Closed::HalfClosed(Pending::Nothing),
        };
        assert_eq!(session.closed().await, closed);
    }
}

#[tokio::test]
async fn who_reads_slowly_what_the_kernel_holds_is_not_idle() {
    let mut session = limited(IDLE).await;
    let queued = fill(&mut session.server).await;
    let mut ticks = interval(TRICKLE);
    let mut heard = 0;
    for _ in 0..40 {
        ticks.tick().await;
        assert!(
            !session.relay.is_finished(),
            "cut after {heard} of {queued} bytes though they flow"
        );
        heard += read_some(&mut session.client, 12_000).await.len();
    }
    assert!(heard < queued, "it had enough to read");
}

#[tokio::test]
async fn half_closed_silence_is_bounded_whoever_finished() {
    for first in [Side::Client, Side::Server] {
        let mut session = limited(HALF_CLOSE).await;
        let (early, late) = match first {
            Side::Client => (&mut session.client, &mut session.server),
            Side::Server => (&mut session.server, &mut session.client),
        };
        early.shutdown().await.unwrap();
        assert!(read_all(late).await.1.is_ok());
        assert!(
            read_all(early).await.1.is_ok(),
            "an orderly end: nothing was on its way"
        );
        assert_eq!(session.closed().await, Closed::HalfClosed(Pending::Nothing));
    }
}

#[tokio::test]
async fn before_anybody_has_finished_only_the_idle_bound_counts() {
    let mut session = limited(HALF_CLOSE).await;
    session.client.write_all(b"then nothing").await.unwrap();
    sleep(LIMIT * 2).await;
    assert!(!session.relay.is_finished());
}

#[tokio::test]
async fn the_nearer_bound_gives_its_name() {
    let both = |idle: u32, half_close: u32| RelayLimits {
        idle_timeout: Some(LIMIT * idle),
        half_close_timeout: Some(LIMIT * half_close),
    };
    for (limits, closed) in [
        (both(1, 50), Closed::Idle(Pending::Nothing)),
        (both(50, 1), Closed::HalfClosed(Pending::Nothing)),
    ] {
        let mut session = limited(limits).await;
        session.client.shutdown().await.unwrap();
        assert_eq!(session.closed().await, closed);
    }
}

#[tokio::test]
async fn a_client_that_never_reads_is_waited_for_only_so_long_after_a_servers_reset() {
    let mut session = Session::new().await;
    assert!(fill(&mut session.server).await > 0);
    reset(session.server);
    let began = Instant::now();
    assert_eq!(
        within(session.relay).await.unwrap(),
        Closed::Broke(Side::Server, Fault::Reset)
    );
    let took = began.elapsed();
    assert!(took > DELIVERY_TIMEOUT / 2 && took < DELIVERY_TIMEOUT * 3, "{took:?}");
    assert_reset(&read_all(&mut session.client).await.1);
}
