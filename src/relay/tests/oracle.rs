//! Checks a relay against the events so far: they alone determine what the relay must have done at every moment.

use parking_lot::Mutex;

use super::kernel::{End, World};
use super::*;

/// Timers have a resolution of a millisecond. A deadline is computed from the time of an earlier check, which was
/// rounded, too: up to three roundings add up.
const ROUNDING: Duration = Duration::from_millis(3);

/// The most bytes that a direction may hold: the size of a pipe. The first bytes may be more.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Checks one relay.
pub(super) struct Oracle<'a> {
    first_bytes: usize,
    limits: RelayLimits,
    world: &'a Mutex<World>,
    traffic: &'a Traffic,
    polled_at: Option<Instant>,
    /// How many more polls may lack a cause: one for each turn, and one to begin delivery.
    spurious_polls_left: u32,
    /// How long bytes, an end of stream or an error may wait to be read, because the bandwidth is limited.
    pub(super) slot_wait: Duration,
    /// Whether the engine learns of the end of the server's stream before it has read up to it.
    pub(super) sees_unread_end: bool,
}

/// The two ends of a direction.
struct Direction<'a> {
    from: &'a End,
    to: &'a End,
}

impl Direction<'_> {
    fn held(&self) -> usize {
        self.from.read - self.to.sent
    }

    /// Everything that has arrived has been sent on.
    fn is_through(&self) -> bool {
        self.from.arrived == self.to.sent
    }

    /// The sender has finished, and everything it sent has been sent on.
    fn is_done(&self) -> bool {
        self.from.ended && self.from.end_read && self.is_through()
    }

    /// Nothing can move.
    fn assert_stuck(&self, is_throttled: bool) {
        assert!(
            self.held() == 0 || !self.to.is_writable(),
            "it holds bytes that could be sent"
        );
        assert!(
            is_throttled || !self.from.is_readable() || self.held() > 0 || !self.to.is_writable(),
            "it does not read bytes that could be read"
        );
    }
}

/// When silence may end the relay, by the events so far.
struct Silence {
    earliest: Instant,
    latest: Instant,
    /// Whether the relay then ends as `HalfClosed`, not as `Idle`.
    is_half_close: bool,
}

impl<'a> Oracle<'a> {
    pub(super) fn new(first_bytes: usize, limits: RelayLimits, world: &'a Mutex<World>, traffic: &'a Traffic) -> Self {
        Self {
            first_bytes,
            limits,
            world,
            traffic,
            polled_at: None,
            spurious_polls_left: 1,
            slot_wait: Duration::ZERO,
            sees_unread_end: true,
        }
    }

    /// A poll must have a cause: an event, time that has passed, or a turn after which the relay yielded.
    pub(super) fn before_poll(&mut self) {
        let mut world = self.world.lock();
        let now = Some(Instant::now());
        if had_a_turn(&world) {
            self.spurious_polls_left += 1;
        } else if self.polled_at == now && !world.was_woken {
            self.spurious_polls_left = self.spurious_polls_left.checked_sub(1).expect("it spins");
        }
        self.polled_at = now;
        world.begins_poll();
    }

    /// To be called after all events were delivered. A relay that goes on sleeping must have nothing to do.
    pub(super) fn between_polls(&self) {
        let world = self.world.lock();
        self.assert_counted(&world);
        let (is_end_known, has_ended) = (self.traffic.down.has_ended(), has_server_ended(&world));
        assert!(!is_end_known || has_ended, "the server has not ended the session");
        let yields = had_a_turn(&world) && self.polled_at == Some(Instant::now());
        if world.was_woken || yields {
            return;
        }
        let must_know_end = has_ended && self.sees_unread_end;
        assert!(
            is_end_known || !must_know_end,
            "the end of the server's stream has arrived"
        );
        let [up, down] = directions(&world);
        assert!(!world.is_cut(), "it was cut and still runs");
        assert!(world.client.broke.is_none(), "the client has broken and it still runs");
        let is_throttled = self.slot_wait > Duration::ZERO;
        down.assert_stuck(is_throttled);
        if let Some((broke_at, _)) = world.server.broke {
            assert!(
                Instant::now() <= world.moved_at.max(broke_at) + self.delivery_wait_max(),
                "delivery is waited for too long"
            );
            return; // the rest is checked when it ends
        }
        up.assert_stuck(is_throttled);
        for direction in [&up, &down] {
            assert!(
                !direction.is_done() || direction.to.finished,
                "an end of stream is not forwarded"
            );
        }
        assert!(!up.is_done() || !down.is_done(), "both are done and it still runs");
        let too_long = |silence: &Silence| Instant::now() > silence.latest;
        assert!(
            !self.silence(&world).as_ref().is_some_and(too_long),
            "silence lasts too long"
        );
    }

    /// Checks how the relay ended.
    pub(super) fn ended(&self, closed: Closed) {
        let world = self.world.lock();
        self.assert_counted(&world);
        let [up, down] = directions(&world);
        let now = Instant::now();
        match closed {
            Closed::Finished(side) => {
                if !up.is_done() || !down.is_done() {
                    assert!(self.follows_server(&world), "{closed:?}, but not all is done");
                    let silence = self.silence(&world).expect("there is a bound");
                    assert!(now >= silence.earliest, "the client had no time to follow its server");
                    assert_eq!(bytes_pending(&world), 0, "the client did not have everything");
                }
                assert_eq!(world.first_ended.map(|(first, _)| first), Some(side));
            }
            Closed::ResetAfterEnd(side) => {
                let server_broke = world.server.broke.map(|(_, fault)| fault);
                let is_reset = server_broke == Some(Fault::Reset) || world.client.broke == Some((now, Fault::Reset));
                assert!(
                    is_reset && had_client_finished(&world),
                    "{closed:?}, but there was no reset, or the client had not finished"
                );
                let is_end_known = self.traffic.down.has_ended(); // if not, the relay has seen only the client's reset
                assert!(
                    server_broke.is_none() || !is_end_known || world.server.ended,
                    "the server had not finished"
                );
                assert_eq!(world.first_ended.map(|(first, _)| first), Some(side));
            }
            Closed::Broke(Side::Client, fault) => {
                assert_eq!(world.client.broke, Some((now, fault)));
                // A reset by a client that has finished may be a fault only if the server broke, too.
                let is_fault = fault != Fault::Reset || world.server.broke.is_some() || !had_client_finished(&world);
                assert!(is_fault, "the client had finished");
            }
            Closed::Broke(Side::Server, fault) => {
                let (broke_at, broke) = world.server.broke.expect("the server has broken");
                assert_eq!(broke, fault);
                let stuck_since = world.moved_at.max(broke_at);
                if down.is_through() && world.client.queued() == 0 {
                    let delivered_at = world
                        .consumed_at
                        .map_or(stuck_since, |consumed_at| consumed_at.max(stuck_since));
                    assert!(
                        now - delivered_at <= DELIVERY_CHECK_INTERVAL + ROUNDING + self.slot_wait,
                        "all was delivered long ago"
                    );
                } else {
                    let wait = DELIVERY_TIMEOUT..=self.delivery_wait_max();
                    assert!(
                        wait.contains(&(now - stuck_since)),
                        "delivery was waited for {:?}",
                        now - stuck_since
                    );
                }
            }
            Closed::Idle(pending) | Closed::HalfClosed(pending) => {
                let silence = self.silence(&world).expect("there is a bound");
                assert!(now >= silence.earliest, "it was not quiet for long enough");
                assert_eq!(matches!(closed, Closed::HalfClosed(_)), silence.is_half_close);
                let bytes = bytes_pending(&world);
                assert!(
                    bytes > 0 || !self.follows_server(&world),
                    "the server had ended the session"
                );
                assert_eq!(pending == Pending::Bytes, bytes > 0, "{bytes} bytes were on their way");
            }
            Closed::Cut => assert!(world.is_cut()),
            Closed::AtRest => panic!("nobody asks for it"),
        }
    }

    /// The longest that bytes for the client may wait for their delivery after the server broke.
    fn delivery_wait_max(&self) -> Duration {
        DELIVERY_TIMEOUT + DELIVERY_CHECK_INTERVAL + ROUNDING + self.slot_wait
    }

    /// When silence may end the relay, and when it must.
    fn silence(&self, world: &World) -> Option<Silence> {
        let half_close = world.first_ended.and(self.limits.half_close_timeout);
        let general = [self.limits.idle_timeout, half_close].into_iter().flatten().min();
        let follow = self.follows_server(world).then_some(FOLLOW_TIMEOUT);
        // The relay compares the send queues at half of this limit, and at its end.
        let checked_limit = general.into_iter().chain(follow).min()?;
        // As long as bytes are pending, `FOLLOW_TIMEOUT` does not apply.
        let limit = if bytes_pending(world) > 0 {
            general?
        } else {
            checked_limit
        };
        let since = world
            .first_ended
            .map_or(world.moved_at, |(_, at)| at.max(world.moved_at));
        let exact = since + limit;
        let (earliest, latest) = match world.consumed_at {
            None => (exact, exact),
            // The last consumption was before the check at half of the limit: the check at its end finds no change.
            Some(consumed_at) if consumed_at + ROUNDING < since + checked_limit / 2 => (exact, exact),
            Some(consumed_at) => (
                exact.max(consumed_at + limit - checked_limit / 2 - ROUNDING),
                exact.max(consumed_at + limit + checked_limit / 2),
            ),
        };
        Some(Silence {
            earliest,
            latest: latest + ROUNDING + self.slot_wait,
            is_half_close: Some(limit) != self.limits.idle_timeout,
        })
    }

    /// Whether the server has ended a session that ends with it.
    fn follows_server(&self, world: &World) -> bool {
        let first = world.first_ended.map(|(first, _)| first);
        self.limits.ends_with_server && first == Some(Side::Server)
    }

    fn assert_counted(&self, world: &World) {
        let counted = (self.traffic.up.bytes(), self.traffic.down.bytes());
        assert_eq!(
            counted,
            ((world.client.read - self.first_bytes) as u64, world.server.read as u64),
            "bytes counted"
        );
        for direction in directions(world) {
            assert!(direction.held() <= HELD_BYTES_MAX.max(self.first_bytes));
        }
    }
}

/// Whether the client had finished, and nothing was left to be sent either way.
fn had_client_finished(world: &World) -> bool {
    let [up, down] = directions(world);
    world.client.ended && world.client.end_read && up.held() == 0 && down.held() == 0
}

/// Whether the end of the server's stream, or its reset, has arrived, although bytes before it may still be unread.
fn has_server_ended(world: &World) -> bool {
    world.server.ended || world.server.broke.is_some()
}

/// The bytes that are on their way to a peer.
fn bytes_pending(world: &World) -> usize {
    let held: usize = directions(world).iter().map(Direction::held).sum();
    held + world.client.queued() + world.server.queued()
}

fn had_a_turn(world: &World) -> bool {
    world.client.has_had_its_turn() || world.server.has_had_its_turn()
}

fn directions(world: &World) -> [Direction<'_>; 2] {
    let (client, server) = (&world.client, &world.server);
    [
        Direction {
            from: client,
            to: server,
        },
        Direction {
            from: server,
            to: client,
        },
    ]
}
