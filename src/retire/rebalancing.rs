//! How many sessions of a pool are to be ended now, so that it becomes even.
//!
//! Sessions are ended at a pace, as long as that has an effect: their clients have to come back to servers without
//! excess, and stay there. Otherwise rebalancing pauses, because a server that accepts connections only to end them
//! would get the sessions of the others for ever. In the pause, one session is ended in each period `over` (the
//! configured `rebalance`) to find out whether that has an effect again.
//!
//! For example, server `a` has 80 sessions and server `b` has none. When six sessions have ended (three times the
//! number of servers), the first of them 5 s ago or earlier, and `b` has kept no client, rebalancing pauses. When `b`
//! keeps a client, rebalancing goes on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::balance::Balance;
use crate::pool::CountId;
use crate::sever::Pace;

/// The least time from the end of the first session to the pause: clients are given this time to come back.
const RETURN_TIME_MIN: Duration = Duration::from_secs(5);

/// The rebalancing of a pool, from its beginning until the pool is even.
#[derive(Debug)]
pub(super) struct Rebalancing {
    pace: Pace,
    /// For each server without excess: the most sessions that it has kept from one tick to the next (`kept` of
    /// [`Self::observe`]) since `counts_since`. A server that keeps more has gained a session.
    most_kept: HashMap<CountId, usize>,
    /// Since when `most_kept` counts; `None`: since the beginning, because no session has ended yet.
    counts_since: Option<Instant>,
    /// The sessions that rebalancing has asked to end, and that have not ended yet.
    asked: HashSet<u64>,
    /// How many of the sessions that were asked have ended since a server without excess last gained a session.
    ended: usize,
    /// When the first of the `ended` sessions ended; without meaning if there are none.
    first_ended_at: Instant,
    /// When the pause began or, later in the pause, when a session was last due to be asked; `None`: there is no pause.
    paused_at: Option<Instant>,
}

impl Rebalancing {
    pub(super) fn new(over: Duration, balance: &Balance, now: Instant) -> Self {
        Self {
            pace: new_pace(over, balance, now),
            most_kept: HashMap::new(),
            counts_since: None,
            asked: HashSet::new(),
            ended: 0,
            first_ended_at: now,
            paused_at: None,
        }
    }

    /// To be called at each tick. `kept`: how many open sessions of a server were already open at the previous tick.
    /// `is_open`: whether the session with this number is open.
    pub(super) fn observe(
        &mut self,
        balance: &Balance,
        kept: impl Fn(CountId) -> usize,
        is_open: impl Fn(u64) -> bool,
        now: Instant,
    ) {
        let before = self.asked.len();
        self.asked.retain(|session| is_open(*session));
        let newly_ended = before - self.asked.len();
        if self.ended == 0 && newly_ended > 0 {
            self.first_ended_at = now;
            self.renew_counts(now);
        }
        self.ended += newly_ended;
        if self.count_kept(balance, kept) {
            (self.ended, self.paused_at) = (0, None);
        }
    }

    /// Forgets `most_kept`. Otherwise, a server that has lost many sessions would gain only once it has more than
    /// before the loss. `most_kept` is forgotten at most once in each period `over`: if a server ends each session
    /// after some seconds, the number that it keeps goes up and down, and would look like a gain after each renewal.
    fn renew_counts(&mut self, now: Instant) {
        if self.counts_since.is_none_or(|since| now - since >= self.pace.over) {
            (self.counts_since, self.most_kept) = (Some(now), HashMap::new());
        }
    }

    /// Updates `most_kept`. Returns whether a server has gained a session.
    fn count_kept(&mut self, balance: &Balance, kept: impl Fn(CountId) -> usize) -> bool {
        let mut has_gained = false;
        let most_kept = |server: &CountId| {
            let (kept, most) = (kept(*server), self.most_kept.get(server).copied());
            has_gained |= most.is_some_and(|most| kept > most);
            (*server, most.map_or(kept, |most| kept.max(most)))
        };
        self.most_kept = balance.without_excess.iter().map(most_kept).collect();
        has_gained
    }

    /// How many sessions are to be asked to end now. Begins the pause if those that have ended had no effect.
    pub(super) fn due(&mut self, pool: &str, over: Duration, balance: &Balance, now: Instant) -> usize {
        // `over` may have changed with a reload.
        let is_pace_current = self.pace.over == over && now - self.pace.began < over;
        if !is_pace_current || self.paused_at.is_some() {
            self.pace = new_pace(over, balance, now);
        }
        match self.paused_at {
            Some(paused_at) if now - paused_at < over => 0,
            Some(_) => {
                self.paused_at = Some(now);
                1
            }
            None if self.ended >= self.patience(balance) && now - self.first_ended_at >= RETURN_TIME_MIN => {
                self.paused_at = Some(now);
                tracing::warn!(
                    pool,
                    ended = self.ended,
                    "rebalancing pauses: the clients whose sessions were ended have not come to servers with too few \
                     sessions, or have not stayed there; look at those servers, and use a check that knows their \
                     protocol"
                );
                0
            }
            None => self.pace.due(now, balance.total()),
        }
    }

    /// A session was asked to end.
    pub(super) fn add_asked(&mut self, session: u64) {
        self.asked.insert(session);
    }

    /// How many sessions may end without a gain of a server before rebalancing pauses: a tenth of those that were in
    /// excess when the pace began, but at least three times the number of servers, because `balance = "round-robin"`
    /// sends only some of the clients to servers without excess.
    fn patience(&self, balance: &Balance) -> usize {
        let servers = balance.excess.len() + balance.without_excess.len();
        (self.pace.initial / 10).max(3 * servers)
    }
}

fn new_pace(over: Duration, balance: &Balance, now: Instant) -> Pace {
    Pace {
        over,
        began: now,
        initial: balance.total(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::ServerLoad;

    const OVER: Duration = Duration::from_secs(20);

    /// A pool of one server with 80 sessions, and others with none.
    struct TestPool {
        balance: Balance,
        rebalancing: Rebalancing,
        now: Instant,
        asked: u64,
    }

    impl TestPool {
        fn new(others: usize) -> Self {
            let load = |sessions| ServerLoad {
                id: CountId::for_test(),
                weight: 1,
                sessions,
                sessions_max: None,
            };
            let loads: Vec<_> = [load(80)].into_iter().chain((0..others).map(|_| load(0))).collect();
            let (balance, now) = (Balance::new(&loads), Instant::now());
            Self {
                rebalancing: Rebalancing::new(OVER, &balance, now),
                balance,
                now,
                asked: 0,
            }
        }

        /// Advances the time by one second, in which the sessions that were asked to end have ended. Then asks one
        /// session to end if any are due, even if more are. Returns how many were due. `kept`: how many sessions each
        /// server has kept (see [`Rebalancing::observe`]); the balance stays the same.
        fn tick(&mut self, kept: usize) -> usize {
            self.tick_with(kept, false)
        }

        /// As [`Self::tick`], but the sessions that were asked to end go on.
        fn tick_while_sessions_go_on(&mut self, kept: usize) -> usize {
            self.tick_with(kept, true)
        }

        fn tick_with(&mut self, kept: usize, go_on: bool) -> usize {
            self.now += Duration::from_secs(1);
            let (balance, now) = (&self.balance, self.now);
            self.rebalancing.observe(balance, |_| kept, |_| go_on, now);
            let due = self.rebalancing.due("p", OVER, balance, now);
            if due > 0 {
                self.asked += 1;
                self.rebalancing.add_asked(self.asked);
            }
            due
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rebalancing_pauses_if_it_has_no_effect() {
        let mut pool = TestPool::new(1);
        let ticks_before_pause = (0..60).take_while(|_| pool.tick(0) > 0).count();
        assert_eq!(ticks_before_pause, 6, "three times the number of servers");
        let tries: usize = (0..100).map(|_| pool.tick(0)).sum();
        assert_eq!(tries, 5, "in the pause, one in each 20 s");
        assert_eq!(
            pool.tick(1),
            3,
            "a session has come and stays, so rebalancing goes on at 40 sessions in 20 s: one at once, two after 1 s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn rebalancing_goes_on_while_some_sessions_come() {
        let mut pool = TestPool::new(9);
        for second in 0..100 {
            // In 10 s, each of the others gains a session, and 10 sessions end: fewer than three times the 10 servers.
            assert!(pool.tick(second / 10) > 0, "{second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_have_time_to_come_back_if_sessions_end_long_after_they_were_asked() {
        let mut pool = TestPool::new(1);
        for _ in 0..30 {
            pool.tick_while_sessions_go_on(0);
        }
        let ticks_before_pause = (0..60).take_while(|_| pool.tick(0) > 0).count();
        assert_eq!(ticks_before_pause, 5, "30 sessions have ended at once, 5 s ago");
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_a_server_kept_earlier_do_not_hide_those_that_come() {
        let mut pool = TestPool::new(1);
        for _ in 0..3 {
            pool.tick_while_sessions_go_on(30);
        }
        // The server has lost 20 of the 30 sessions. From then on, it gains one in 4 s.
        for second in 0..60 {
            assert!(pool.tick(10 + second / 4) > 0, "{second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_of_sessions_that_goes_up_and_down_is_no_gain() {
        let mut pool = TestPool::new(1);
        let ticks_before_pause = (0..200).take_while(|second| pool.tick([0, 1, 2, 1][second % 4]) > 0);
        assert!(
            ticks_before_pause.count() < 20,
            "expected the pause before the counts are renewed, after 20 s"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_a_server_lost_after_a_gain_do_not_hide_those_that_come() {
        let mut pool = TestPool::new(1);
        for second in 0..40 {
            assert!(pool.tick(second / 2) > 0, "{second}");
        }
        for _ in 0..60 {
            pool.tick_while_sessions_go_on(20); // one more than before: a gain, after which no session ends
        }
        // The server has lost 15 of the 20 sessions, and the sessions that were asked end at once.
        for second in 0..40 {
            assert!(pool.tick(5 + second / 4) > 0, "{second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_that_go_on_although_asked_to_end_do_not_count_as_ended() {
        let mut pool = TestPool::new(1);
        assert!((0..100).all(|_| pool.tick_while_sessions_go_on(0) > 0));
    }
}
