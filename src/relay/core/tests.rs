//! Tests of what the simulation does not cover, such as a system that does not report send queues, and of single rules.

use super::super::closed::{DeliveryNotes, EndRequest, Pending};
use super::*;
use crate::socket::Fault;

const IDLE: RelayLimits = RelayLimits {
    idle_timeout: Some(Duration::from_secs(60)),
    half_close_timeout: None,
    ends_with_server: false,
};

/// Creates the core of a relay between plain sockets: closing one tells its peer that the stream is complete.
fn core_without_tls(first_bytes: usize, limits: RelayLimits, traffic: &Traffic, now: Instant) -> Core<'_> {
    let ends_explicitly = false;
    Core::new(first_bytes, limits, traffic, ends_explicitly, now)
}

/// Expires every deadline, without send queues, until the relay is over. Returns when and how it ended.
fn expire_until_closed(core: &mut Core<'_>, mut now: Instant) -> (Instant, Closed) {
    loop {
        now = core.deadline().expect("a relay with a limit has a deadline").max(now);
        core.expire(now, |_| None);
        if let Some(closed) = core.closed() {
            return (now, closed);
        }
    }
}

#[test]
fn delivery_after_a_reset_takes_the_whole_timeout_if_send_queues_are_not_reported() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = core_without_tls(0, IDLE, &traffic, start);
    core.received(Side::Server, 100);
    core.sent(Side::Server, 100);
    core.broke(Side::Server, Fault::Reset, start);
    core.ended(Side::Server, start);
    let (now, closed) = expire_until_closed(&mut core, start);
    assert_eq!(closed, Closed::Broke(Side::Server, Fault::Reset));
    assert_eq!(now - start, DELIVERY_TIMEOUT);
}

#[test]
fn silence_ends_a_session_in_an_orderly_way_if_send_queues_are_not_reported() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = core_without_tls(0, IDLE, &traffic, start);
    let (now, closed) = expire_until_closed(&mut core, start);
    assert_eq!(closed, Closed::Idle(Pending::Nothing));
    assert_eq!(Some(now - start), IDLE.idle_timeout);
}

#[test]
fn silence_with_unsent_bytes_ends_abruptly_even_if_send_queues_are_not_reported() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = core_without_tls(7, IDLE, &traffic, start);
    assert_eq!(expire_until_closed(&mut core, start).1, Closed::Idle(Pending::Bytes));
}

#[test]
fn a_truncated_client_counts_as_finished_after_the_server_has_finished() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    for (server_has_ended, expected) in [
        (true, Closed::Finished(Side::Server)),
        (false, Closed::Broke(Side::Client, Fault::Truncated)),
    ] {
        let mut core = core_without_tls(0, IDLE, &traffic, start);
        if server_has_ended {
            core.ended(Side::Server, start);
            core.shut_down(Side::Server);
        }
        core.broke(Side::Client, Fault::Truncated, start);
        assert_eq!(core.closed(), Some(expected));
    }
}

#[test]
fn a_truncated_server_never_counts_as_finished() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    for client_has_ended in [true, false] {
        let mut core = core_without_tls(0, IDLE, &traffic, start);
        if client_has_ended {
            core.ended(Side::Client, start);
            core.shut_down(Side::Client);
        }
        core.received(Side::Server, 100);
        core.sent(Side::Server, 100);
        core.broke(Side::Server, Fault::Truncated, start);
        core.broke(Side::Server, Fault::Truncated, start); // the next read reports it again
        core.expire(start, |_| Some(SendQueue::EMPTY));
        assert_eq!(core.closed(), Some(Closed::Broke(Side::Server, Fault::Truncated)));
    }
}

#[test]
fn a_session_is_at_rest_if_the_server_sent_last_and_everything_is_delivered() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let notes = DeliveryNotes::default();
    let mut core = core_without_tls(0, IDLE, &traffic, start);
    let delivered = |_| Some(SendQueue::EMPTY);
    assert!(!core.is_at_rest(), "the server has sent nothing");
    core.received(Side::Client, 5);
    core.sent(Side::Client, 5);
    assert!(!core.is_at_rest(), "the server has not answered");
    core.end(EndRequest::IfAtRest(&notes), delivered);
    assert_eq!(core.closed(), None);
    core.received(Side::Server, 7);
    assert!(!core.is_at_rest(), "the answer is not sent to the client yet");
    core.sent(Side::Server, 7);
    assert!(core.is_at_rest());
    core.set_held_back(Side::Server, true);
    assert!(!core.is_at_rest(), "more bytes of the server may be unread");
    core.set_held_back(Side::Server, false);
    let not_sent = SendQueue {
        not_sent_bytes: 1,
        ..SendQueue::EMPTY
    };
    let unacknowledged = SendQueue {
        unacknowledged_segments: 1,
        ..SendQueue::EMPTY
    };
    for (towards, queue) in [Side::Client, Side::Server]
        .map(|side| [(side, not_sent), (side, unacknowledged)])
        .concat()
    {
        core.end(EndRequest::IfAtRest(&notes), |side| {
            Some(if side == towards { queue } else { SendQueue::EMPTY })
        });
        assert_eq!(core.closed(), None, "the kernel still sends to {towards:?}: {queue:?}");
    }
    assert_eq!(notes.count(), 4, "each of the four has found bytes on their way");
    core.end(EndRequest::NoteDelivery(&notes), delivered);
    assert_eq!((core.closed(), notes.count()), (None, 4), "everything is delivered");
    core.ended(Side::Client, start);
    assert!(!core.is_at_rest(), "the session ends by itself");
}

#[test]
fn a_session_is_at_rest_after_a_login_if_the_client_has_sent_nothing_since() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let notes = DeliveryNotes::default();
    let delivered = |_| Some(SendQueue::EMPTY);
    traffic.down.add(7); // the server's last bytes of a login that was relayed before
    let mut after_login = core_without_tls(0, IDLE, &traffic, start);
    after_login.end(EndRequest::IfAtRest(&notes), delivered);
    assert_eq!(after_login.closed(), Some(Closed::AtRest));
    assert!(!Closed::AtRest.is_abrupt());
    let mut without_queues = core_without_tls(0, IDLE, &traffic, start);
    without_queues.end(EndRequest::IfAtRest(&notes), |_| None);
    assert_eq!(without_queues.closed(), Some(Closed::AtRest));
    let mut with_first_bytes = core_without_tls(3, IDLE, &traffic, start);
    with_first_bytes.end(EndRequest::IfAtRest(&notes), delivered);
    assert_eq!(with_first_bytes.closed(), None, "the client has asked for something");
    with_first_bytes.end(EndRequest::Cut, delivered);
    assert_eq!(with_first_bytes.closed(), Some(Closed::Cut));
}

/// The session waits for bandwidth for ten minutes. Its limit on silence counts from the end of that wait.
#[test]
fn bytes_waiting_for_bandwidth_do_not_count_as_silence() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    for side in [Side::Client, Side::Server] {
        let mut core = core_without_tls(0, IDLE, &traffic, start);
        core.set_held_back(side, true);
        let mut now = start;
        while now < start + Duration::from_secs(600) {
            now = core.deadline().expect("a relay with a limit has a deadline").max(now);
            core.expire(now, |_| Some(SendQueue::EMPTY));
            assert_eq!(core.closed(), None, "after {:?}", now - start);
        }
        core.set_held_back(side, false);
        core.received(side, 1);
        core.sent(side, 1);
        core.settle(|| now);
        let (ended, closed) = expire_until_closed(&mut core, now);
        assert_eq!(closed, Closed::Idle(Pending::Nothing));
        assert_eq!(Some(ended - now), IDLE.idle_timeout);
    }
}

#[test]
fn delivery_after_a_reset_waits_for_bandwidth() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = core_without_tls(0, IDLE, &traffic, start);
    core.broke(Side::Server, Fault::Reset, start);
    core.set_held_back(Side::Server, true);
    let mut now = start;
    while now < start + 10 * DELIVERY_TIMEOUT {
        now = core.deadline().expect("delivery has a deadline").max(now);
        core.expire(now, |_| Some(SendQueue::EMPTY));
        assert_eq!(core.closed(), None, "after {:?}", now - start);
    }
    core.set_held_back(Side::Server, false);
    core.ended(Side::Server, now);
    now += DELIVERY_CHECK_INTERVAL;
    core.expire(now, |_| Some(SendQueue::EMPTY));
    assert_eq!(core.closed(), Some(Closed::Broke(Side::Server, Fault::Reset)));
}

#[test]
fn a_session_with_bytes_waiting_for_bandwidth_is_not_at_rest() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = core_without_tls(0, IDLE, &traffic, start);
    core.received(Side::Server, 7);
    core.sent(Side::Server, 7);
    assert!(core.is_at_rest());
    core.set_held_back(Side::Client, true);
    assert!(!core.is_at_rest(), "the client has asked for something");
}

/// With the protocol of a database, the session is over once the server has finished and the client has everything. The
/// client then has [`FOLLOW_TIMEOUT`] to finish, too.
#[test]
fn a_session_that_ends_with_its_server_gives_the_client_a_moment_to_follow() {
    let limits = RelayLimits {
        half_close_timeout: Some(Duration::from_secs(600)),
        ends_with_server: true,
        ..IDLE
    };
    let (traffic, start) = (Traffic::default(), Instant::now());
    let ended_by = |first| {
        let mut core = core_without_tls(
            0,
            RelayLimits {
                idle_timeout: None,
                ..limits
            },
            &traffic,
            start,
        );
        core.ended(first, start);
        core.shut_down(first);
        core
    };
    let mut core = ended_by(Side::Server);
    let (ended, closed) = expire_until_closed(&mut core, start);
    assert_eq!(
        (ended - start, closed),
        (FOLLOW_TIMEOUT, Closed::Finished(Side::Server))
    );
    let (ended, closed) = expire_until_closed(&mut ended_by(Side::Client), start);
    let half_closed = Closed::HalfClosed(Pending::Nothing);
    assert_eq!(
        (ended - start, closed),
        (Duration::from_secs(600), half_closed),
        "the server may still work"
    );
    // The client is slow to take what the server has sent.
    let mut core = core_without_tls(0, limits, &traffic, start);
    core.received(Side::Server, 7);
    core.ended(Side::Server, start);
    let (ended, closed) = expire_until_closed(&mut core, start);
    assert_eq!(
        (ended - start, closed),
        (Duration::from_secs(60), Closed::Idle(Pending::Bytes))
    );
}

/// After a slow client has taken everything, it has [`FOLLOW_TIMEOUT`] to finish, as any other client. A client that
/// does not take everything has the half-close timeout, and [`FOLLOW_TIMEOUT`] is not added to that.
#[test]
fn a_slow_client_follows_its_server_once_it_has_everything() {
    let second = Duration::from_secs(1);
    for (half_close, taken_after, expected) in [
        (
            Some(3_600 * second),
            6 * second,
            (11 * second, Closed::Finished(Side::Server)),
        ),
        (None, 100 * second, (105 * second, Closed::Finished(Side::Server))),
        (
            Some(2 * second),
            6 * second,
            (2 * second, Closed::HalfClosed(Pending::Bytes)),
        ),
        (
            Some(8 * second),
            9 * second,
            (8 * second, Closed::HalfClosed(Pending::Bytes)),
        ),
    ] {
        let limits = RelayLimits {
            idle_timeout: None,
            half_close_timeout: half_close,
            ends_with_server: true,
        };
        let (traffic, start) = (Traffic::default(), Instant::now());
        let mut core = core_without_tls(0, limits, &traffic, start);
        core.received(Side::Server, 7);
        core.ended(Side::Server, start);
        core.settle(|| start);
        let mut expired_at = start;
        while core.closed().is_none() && core.deadline().unwrap() < start + taken_after {
            expired_at = core.deadline().unwrap();
            core.expire(expired_at, |_| None);
        }
        let (now, closed) = match core.closed() {
            Some(closed) => (expired_at, closed),
            None => {
                core.sent(Side::Server, 7);
                core.shut_down(Side::Server);
                core.settle(|| start + taken_after);
                expire_until_closed(&mut core, start)
            }
        };
        assert_eq!((now - start, closed), expected);
    }
}

#[test]
fn a_broken_server_counts_as_ended_unless_tls_failed() {
    for (fault, expected) in [
        (Fault::Reset, true),
        (Fault::Lost, true),
        (Fault::Truncated, true),
        (Fault::Tls, false),
    ] {
        let (traffic, start) = (Traffic::default(), Instant::now());
        let mut core = core_without_tls(0, IDLE, &traffic, start);
        assert!(!traffic.down.has_ended());
        core.broke(Side::Server, fault, start);
        assert_eq!(traffic.down.has_ended(), expected, "{fault:?}");
    }
}
