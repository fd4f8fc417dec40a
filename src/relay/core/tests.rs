//! What the simulation does not reach: a system that does not tell what it still holds.

use super::*;

const IDLE: RelayLimits = RelayLimits {
    idle_timeout: Some(Duration::from_secs(60)),
    half_close_timeout: None,
};

/// Lets every deadline come, of a system that tells nothing, until it is over. Returns when and how.
fn expired(core: &mut Core<'_>, mut now: Instant) -> (Instant, Closed) {
    loop {
        now = core.deadline().expect("there is one").max(now);
        core.expire(now, |_| None);
        if let Some(closed) = core.closed() {
            return (now, closed);
        }
    }
}

#[test]
fn without_send_queue_figures_delivery_after_a_reset_gets_its_whole_time() {
    let (traffic, began) = (Traffic::default(), Instant::now());
    let mut core = Core::new(0, IDLE, &traffic, began);
    core.received(Side::Server, 100);
    core.sent(Side::Server, 100);
    core.broke(Side::Server, Fault::Reset, began);
    core.ended(Side::Server, began);
    let (now, closed) = expired(&mut core, began);
    assert_eq!(closed, Closed::Broke(Side::Server, Fault::Reset));
    assert_eq!(now - began, DELIVERY_PATIENCE);
}

#[test]
fn without_send_queue_figures_silence_ends_a_session_in_an_orderly_way() {
    let (traffic, began) = (Traffic::default(), Instant::now());
    let mut core = Core::new(0, IDLE, &traffic, began);
    let (now, closed) = expired(&mut core, began);
    assert_eq!(closed, Closed::Idle(Pending::Nothing));
    assert_eq!(Some(now - began), IDLE.idle_timeout);
}

#[test]
fn silence_with_unsent_bytes_is_a_cut_whatever_the_system_tells() {
    let (traffic, began) = (Traffic::default(), Instant::now());
    let mut core = Core::new(7, IDLE, &traffic, began);
    assert_eq!(expired(&mut core, began).1, Closed::Idle(Pending::Bytes));
}
