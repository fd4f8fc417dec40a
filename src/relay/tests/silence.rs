//! The limits on silence. In real time: a paused clock would run ahead of the kernel's sockets.

use tokio::time::{Interval, interval, sleep};

use super::*;

/// Short enough to wait for, long against the pauses of a busy machine.
const LIMIT: Duration = Duration::from_millis(800);

/// The pause between two reads or writes of a slow peer, short against [`LIMIT`].
const TRICKLE: Duration = Duration::from_millis(80);

/// The number of reads or writes of a slow peer: together they take longer than two [`LIMIT`]s.
const TICKS: usize = 25;

const IDLE: RelayLimits = RelayLimits {
    idle_timeout: Some(LIMIT),
    half_close_timeout: None,
    ends_with_server: false,
};

const HALF_CLOSE: RelayLimits = RelayLimits {
    idle_timeout: None,
    half_close_timeout: Some(LIMIT),
    ends_with_server: false,
};

/// The pace of a peer that reads or writes a little every [`TRICKLE`].
struct Pace {
    ticks: Interval,
    last: Instant,
}

impl Pace {
    fn new() -> Self {
        Self {
            ticks: interval(TRICKLE),
            last: Instant::now(),
        }
    }

    /// Waits for the next tick. Returns whether it came in time: on a busy machine a silence may last longer than the
    /// peer intends, and then the test has to begin anew.
    async fn tick(&mut self) -> bool {
        self.ticks.tick().await;
        let in_time = !self.is_late();
        self.last = Instant::now();
        in_time
    }

    /// Whether so much time has passed since the last tick that the relay may have ended.
    fn is_late(&self) -> bool {
        self.last.elapsed() >= LIMIT / 2
    }
}

async fn limited(limits: RelayLimits) -> Session {
    Session::with(Setup {
        limits,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn silence_ends_the_relay_cleanly() {
    let mut session = limited(IDLE).await;
    session.client.write_all(b"once").await.unwrap();
    read_exactly(&mut session.server, 4).await;
    let began = Instant::now();
    assert!(read_all(&mut session.client).await.1.is_ok());
    assert!(read_all(&mut session.server).await.1.is_ok());
    assert!(began.elapsed() > LIMIT / 2);
    assert_eq!(session.closed().await, Closed::Idle(Pending::Nothing));
}

#[tokio::test]
async fn silence_with_unsent_bytes_ends_by_a_reset() {
    let mut session = limited(IDLE).await;
    assert!(fill(&mut session.client).await > 0);
    assert_eq!(within(&mut session.relay).await.unwrap(), Closed::Idle(Pending::Bytes));
    assert_reset(&read_all(&mut session.server).await.1);
}

#[tokio::test]
async fn bytes_in_the_send_queue_of_the_kernel_count_as_pending() {
    let mut session = limited(IDLE).await;
    // More than fits into the client's receive buffer, and less than fits into that and our send buffer together: the
    // relay holds nothing.
    let bytes = {
        let buffer = SockRef::from(&session.client).recv_buffer_size().unwrap();
        vec![4; buffer * 2]
    };
    within(session.server.write_all(&bytes)).await.unwrap();
    assert_eq!(within(&mut session.relay).await.unwrap(), Closed::Idle(Pending::Bytes));
}

#[tokio::test]
async fn a_sender_that_trickles_is_not_idle() {
    for limits in [IDLE, HALF_CLOSE] {
        while !trickles(limits).await {}
    }
}

/// Returns whether the sender could keep its pace.
async fn trickles(limits: RelayLimits) -> bool {
    let mut session = limited(limits).await;
    session.client.shutdown().await.unwrap();
    let mut pace = Pace::new();
    for _ in 0..TICKS {
        if !pace.tick().await {
            return false;
        }
        session.server.write_all(b".").await.unwrap();
    }
    if pace.is_late() {
        return false;
    }
    assert!(!session.relay.is_finished());
    assert_eq!(read_exactly(&mut session.client, TICKS).await, [b'.'; TICKS]);
    let closed = match limits {
        IDLE => Closed::Idle(Pending::Nothing),
        _ => Closed::HalfClosed(Pending::Nothing),
    };
    assert_eq!(session.closed().await, closed);
    true
}

#[tokio::test]
async fn a_client_that_slowly_reads_what_the_kernel_holds_is_not_idle() {
    while !reads_slowly().await {}
}

/// Returns whether the client could keep its pace.
async fn reads_slowly() -> bool {
    // The client's kernel sends a window update after a read only if much of the receive buffer is then free. Here each
    // read empties the buffer.
    const BUFFER: usize = 16 * 1024;
    let mut session = limited(IDLE).await;
    SockRef::from(&session.client).set_recv_buffer_size(BUFFER).unwrap();
    let queued = fill(&mut session.server).await;
    let mut pace = Pace::new();
    let mut received = 0;
    for _ in 0..TICKS {
        if !pace.tick().await {
            return false;
        }
        assert!(
            !session.relay.is_finished(),
            "cut after {received} of {queued} bytes although the client reads"
        );
        let mut buffer = vec![0; 2 * BUFFER];
        if let Err(error) = within(session.client.read_exact(&mut buffer)).await {
            assert!(pace.is_late(), "{error} after {received} of {queued} bytes");
            return false;
        }
        received += buffer.len();
    }
    assert!(received < queued, "expected bytes left to read, of {queued}");
    true
}

#[tokio::test]
async fn the_half_close_timeout_applies_whichever_side_finished() {
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
            "expected a clean end, because nothing was pending"
        );
        assert_eq!(session.closed().await, Closed::HalfClosed(Pending::Nothing));
    }
}

#[tokio::test]
async fn without_a_half_close_its_timeout_does_not_apply() {
    let mut session = limited(HALF_CLOSE).await;
    session.client.write_all(b"then nothing").await.unwrap();
    sleep(LIMIT * 2).await;
    assert!(!session.relay.is_finished());
}

#[tokio::test]
async fn the_shorter_limit_is_reported() {
    let both = |idle: u32, half_close: u32| RelayLimits {
        idle_timeout: Some(LIMIT * idle),
        half_close_timeout: Some(LIMIT * half_close),
        ends_with_server: false,
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
async fn delivery_to_a_client_that_never_reads_ends_after_the_delivery_timeout() {
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
