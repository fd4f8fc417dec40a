//! What the simulation does not cover: a system that does not report send queues.

use super::*;

const IDLE: RelayLimits = RelayLimits {
    idle_timeout: Some(Duration::from_secs(60)),
    half_close_timeout: None,
};

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
fn without_send_queue_figures_delivery_after_a_reset_gets_its_whole_time() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = Core::new(0, IDLE, &traffic, false, start);
    core.received(Side::Server, 100);
    core.sent(Side::Server, 100);
    core.broke(Side::Server, Fault::Reset, start);
    core.ended(Side::Server, start);
    let (now, closed) = expire_until_closed(&mut core, start);
    assert_eq!(closed, Closed::Broke(Side::Server, Fault::Reset));
    assert_eq!(now - start, DELIVERY_TIMEOUT);
}

#[test]
fn without_send_queue_figures_silence_ends_a_session_in_an_orderly_way() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = Core::new(0, IDLE, &traffic, false, start);
    let (now, closed) = expire_until_closed(&mut core, start);
    assert_eq!(closed, Closed::Idle(Pending::Nothing));
    assert_eq!(Some(now - start), IDLE.idle_timeout);
}

#[test]
fn silence_with_unsent_bytes_ends_abruptly_without_send_queue_figures_too() {
    let (traffic, start) = (Traffic::default(), Instant::now());
    let mut core = Core::new(7, IDLE, &traffic, false, start);
    assert_eq!(expire_until_closed(&mut core, start).1, Closed::Idle(Pending::Bytes));
}
