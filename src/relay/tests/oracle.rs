//! Checks a relay against the events so far: they alone determine what the relay must have done at every moment.

use parking_lot::Mutex;

use super::kernel::{End, World};
use super::*;

/// How much later than computed here the relay may act. A timer fires up to a millisecond late (its resolution), and
/// the relay computes the next deadline from the time at which it fired. So delays add up: there is room for three.
const ROUNDING: Duration = Duration::from_millis(3);

/// The most bytes that a direction may hold, read and not yet sent: the size of a pipe. The bytes that were read before
/// the relay began (`first_bytes`) may be more.
const HELD_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Oracle<'a> {
    first_bytes: usize,
    limits: RelayLimits,
    world: &'a Mutex<World>,
    traffic: &'a Traffic,
    polled_at: Option<Instant>,
    /// How many more polls may lack a cause (see [`Self::before_poll`]): one for each poll in which a direction used up
    /// its turn (`TURN_BYTES`), because an event may cause the next poll before the relay's own wake-up causes
    /// another.
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

    /// The sender has ended its stream, the end was read, and everything before it has been sent on.
    fn is_done(&self) -> bool {
        self.from.ended && self.from.end_read && self.is_through()
    }

    /// Asserts that no byte can move. `is_throttled`: bytes may be left unread.
    fn assert_stuck(&self, is_throttled: bool) {
        assert!(
            self.held() == 0 || !self.to.is_writable(),
            "bytes that could be sent are held"
        );
        assert!(
            is_throttled || !self.from.is_readable() || self.held() > 0 || !self.to.is_writable(),
            "bytes that could be read are left unread"
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
            spurious_polls_left: 0,
            slot_wait: Duration::ZERO,
            sees_unread_end: true,
        }
    }

    /// A poll must have a cause: an event, time that has passed since the last poll, or that a direction used up its
    /// turn in the last poll, so that the relay yielded.
    pub(super) fn before_poll(&mut self) {
        let mut world = self.world.lock();
        let now = Some(Instant::now());
        if used_up_a_turn(&world) {
            self.spurious_polls_left += 1;
        } else if self.polled_at == now && !world.was_woken {
            self.spurious_polls_left = self
                .spurious_polls_left
                .checked_sub(1)
                .expect("polled without a cause: the relay spins");
        }
        self.polled_at = now;
        world.begins_poll();
    }

    /// To be called after all events were delivered. A relay that goes on sleeping must have nothing to do.
    pub(super) fn between_polls(&self) {
        let world = self.world.lock();
        self.assert_counted(&world);
        let (is_end_known, has_ended) = (self.traffic.down.has_ended(), has_server_ended(&world));
        assert!(
            !is_end_known || has_ended,
            "an end of the server's stream is reported that has not arrived"
        );
        let yields = used_up_a_turn(&world) && self.polled_at == Some(Instant::now());
        if world.was_woken || yields {
            return;
        }
        let must_know_end = has_ended && self.sees_unread_end;
        assert!(
            is_end_known || !must_know_end,
            "the end of the server's stream has arrived and is not reported"
        );
        let [up, down] = directions(&world);
        assert!(!world.is_cut(), "cut, and it still runs");
        assert!(world.client.broke.is_none(), "the client has broken, and it still runs");
        let is_throttled = self.slot_wait > Duration::ZERO;
        down.assert_stuck(is_throttled);
        if let Some((broke_at, _)) = world.server.broke {
            assert!(
                Instant::now() <= world.moved_at.max(broke_at) + self.delivery_wait_max(),
                "the server has broken, and it waits for delivery for too long"
            );
            return; // `up` is abandoned, and no limit on silence applies
        }
        up.assert_stuck(is_throttled);
        for direction in [&up, &down] {
            assert!(
                !direction.is_done() || direction.to.shut_down,
                "a whole stream was sent on, but not its end"
            );
        }
        assert!(
            !up.is_done() || !down.is_done(),
            "both streams are done, and it still runs"
        );
        let too_long = |silence: &Silence| Instant::now() > silence.latest;
        assert!(
            !self.silence(&world).as_ref().is_some_and(too_long),
            "silence has lasted too long, and it still runs"
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
                    assert!(self.follows_server(&world), "{closed:?}, but a stream is not done");
                    let silence = self.silence(&world).expect("silence has a limit");
                    assert!(
                        now >= silence.earliest,
                        "{closed:?}, but the client had time left to follow its server"
                    );
                    assert_eq!(bytes_pending(&world), 0, "{closed:?}, but bytes were on their way");
                }
                assert_eq!(world.first_ended.map(|(first, _)| first), Some(side));
            }
            Closed::ResetAfterEnd(side) => {
                let server_broke = world.server.broke.map(|(_, fault)| fault);
                let is_reset = server_broke == Some(Fault::Reset) || world.client.broke == Some((now, Fault::Reset));
                assert!(
                    is_reset && reset_loses_nothing(&world),
                    "{closed:?}, but there was no reset, or it lost bytes"
                );
                // A relay that knows of neither an end nor a break of the server has seen only the client's reset.
                let is_end_known = self.traffic.down.has_ended();
                assert!(
                    server_broke.is_none() || !is_end_known || world.server.ended,
                    "{closed:?}, but the server had not finished"
                );
                assert_eq!(world.first_ended.map(|(first, _)| first), Some(side));
            }
            Closed::Broke(Side::Client, fault) => {
                assert_eq!(world.client.broke, Some((now, fault)));
                // Unless the server broke, too, a reset by the client that loses nothing is no fault (`ResetAfterEnd`).
                let is_fault = fault != Fault::Reset || world.server.broke.is_some() || !reset_loses_nothing(&world);
                assert!(is_fault, "{closed:?}, but the reset lost nothing");
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
                        "{closed:?}, but everything was delivered long before"
                    );
                } else {
                    let wait = DELIVERY_TIMEOUT..=self.delivery_wait_max();
                    assert!(
                        wait.contains(&(now - stuck_since)),
                        "{closed:?}, but the wait for delivery took {:?}",
                        now - stuck_since
                    );
                }
            }
            Closed::Idle(pending) | Closed::HalfClosed(pending) => {
                let silence = self.silence(&world).expect("silence has a limit");
                assert!(
                    now >= silence.earliest,
                    "{closed:?}, but silence had not lasted for long enough"
                );
                assert_eq!(matches!(closed, Closed::HalfClosed(_)), silence.is_half_close);
                let bytes = bytes_pending(&world);
                assert!(
                    bytes > 0 || !self.follows_server(&world),
                    "{closed:?}, but the client had everything and only did not follow its server: `Finished`"
                );
                assert_eq!(pending == Pending::Bytes, bytes > 0, "{bytes} bytes were on their way");
            }
            Closed::Cut => assert!(world.is_cut(), "nobody has cut it"),
            Closed::AtRest => panic!("no case requests an end at rest"),
        }
    }

    /// After the server broke: how long the relay may wait for the delivery to the client while no byte moves.
    fn delivery_wait_max(&self) -> Duration {
        DELIVERY_TIMEOUT + DELIVERY_CHECK_INTERVAL + ROUNDING + self.slot_wait
    }

    /// When silence may end the relay, and when it must; `None`: there is no limit on silence.
    fn silence(&self, world: &World) -> Option<Silence> {
        let half_close = world.first_ended.and(self.limits.half_close_timeout);
        let general = [self.limits.idle_timeout, half_close].into_iter().flatten().min();
        let follow = self.follows_server(world).then_some(FOLLOW_TIMEOUT);
        // The limit at which the relay checks: it compares the send queues at half of this limit, and at its end.
        let checked_limit = general.into_iter().chain(follow).min()?;
        // The limit that ends the relay. As long as bytes are pending, that is not `FOLLOW_TIMEOUT`.
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
            // The last consumption was before the first check, at half of the limit. So no check finds a change.
            Some(consumed_at) if consumed_at + ROUNDING < since + checked_limit / 2 => (exact, exact),
            // The last consumption was about at the first check, or later. A check that finds a consumption begins a
            // new silence, which lasts for the limit. The checks are half of a limit apart, so the consumption is found
            // at once, or up to half of a limit later. The first check finds none: it has nothing to compare with. If
            // the consumption was just before it, the end is half of a limit earlier.
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

    /// Whether the client has to follow the server: the session `ends_with_server`, and the server has finished first.
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

/// Whether a reset loses nothing: the client has finished, and nothing is left to be sent either way.
fn reset_loses_nothing(world: &World) -> bool {
    let [up, down] = directions(world);
    world.client.ended && world.client.end_read && up.held() == 0 && down.held() == 0
}

/// Whether the end of the server's stream has arrived, or its connection has broken, although bytes before that may
/// still be unread.
fn has_server_ended(world: &World) -> bool {
    world.server.ended || world.server.broke.is_some()
}

/// The bytes that are on their way to a peer: not sent yet, or not consumed yet.
fn bytes_pending(world: &World) -> usize {
    let held: usize = directions(world).iter().map(Direction::held).sum();
    held + world.client.queued() + world.server.queued()
}

/// Whether a direction has used up its turn in the last poll.
fn used_up_a_turn(world: &World) -> bool {
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
