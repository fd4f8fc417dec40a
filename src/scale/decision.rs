//! Decides when a pool gets another clone and when one leaves: a function of its load and the time.

use std::cmp::Ordering;
use std::time::Duration;

use tokio::time::Instant;

/// The load makes a clone leave only if the number of sessions is below this percentage of the other servers' target,
/// or 0. Without this margin, a load that has just started a clone could also stop it.
const DOWN_PERCENT: u64 = 80;

/// The bounds of a pool that grows and shrinks, and its pace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScaleRules {
    /// The fewest clones; with 0 the pool may sleep.
    pub min: u32,
    /// The most clones; at least `min` and 1.
    pub max: u32,
    /// The target: sessions of each server, on average; at least 1.
    pub sessions_per_server: u32,
    /// How long the load must be above the target before the pool grows.
    pub up_after: Duration,
    /// How long the load must be low before a clone leaves.
    pub down_after: Duration,
    /// The shortest time between a step and the next one that the load causes. The first client of a pool that sleeps
    /// does not wait for it.
    pub cooldown: Duration,
}

/// The load of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleLoad {
    /// Open sessions on its servers; those on clones that are leaving do not count.
    pub sessions: u64,
    /// Clients that wait for a server.
    pub waiting: u64,
    /// Whether any server is up, be it a clone or not. If so, clients that wait do so because all servers are full; if
    /// not, they wait for the first server.
    pub has_server: bool,
    /// Servers that are up and in service, and are not clones.
    pub fixed: u32,
    /// Clones, including those that are starting. Leaving ones are not counted.
    pub clones: u32,
}

/// A change of the number of clones, by at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleStep {
    /// This many more.
    Up(u32),
    /// This many fewer.
    Down(u32),
}

/// The state between two decisions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scaler {
    above_since: Option<Instant>,
    below_since: Option<Instant>,
    last_step: Option<Instant>,
}

impl Scaler {
    /// The step that the caller is to take now. `wanted`: the number of clones that an operator has set.
    ///
    /// The bounds take precedence over the operator, and the operator over the first client of a pool that sleeps.
    /// These three cause a step at once. All other steps come at least a cooldown after the step before. They go up by
    /// one clone (to twice as many clones while all servers are full), or down by one.
    pub fn decide(
        &mut self,
        rules: &ScaleRules,
        wanted: Option<u32>,
        load: ScaleLoad,
        now: Instant,
    ) -> Option<ScaleStep> {
        let above_for = lasting(&mut self.above_since, is_above(rules, load), now);
        let below_for = lasting(&mut self.below_since, is_below(rules, load), now);
        let is_woken = load.waiting > 0 && load.clones == 0 && load.fixed == 0;
        let has_cooled = self.last_step.is_none_or(|last| now >= last + rules.cooldown);
        let next = match wanted {
            Some(wanted) => wanted,
            None if is_woken => 1,
            None if !has_cooled => load.clones,
            None if above_for.is_some_and(|time| time >= rules.up_after) => {
                let more = if is_full(load) { load.clones.max(1) } else { 1 };
                load.clones.saturating_add(more)
            }
            None if below_for.is_some_and(|time| time >= rules.down_after) => load.clones.saturating_sub(1),
            None => load.clones,
        };
        let next = next.clamp(rules.min, rules.max);
        let step = match next.cmp(&load.clones) {
            Ordering::Greater => ScaleStep::Up(next - load.clones),
            Ordering::Less => ScaleStep::Down(load.clones - next),
            Ordering::Equal => return None,
        };
        *self = Self {
            last_step: Some(now),
            ..Self::default()
        };
        Some(step)
    }
}

/// Whether clients wait because all servers are full.
fn is_full(load: ScaleLoad) -> bool {
    load.waiting > 0 && load.has_server
}

/// Whether the servers have more sessions than their target, or are full. Clients that wait count as sessions: those
/// that wait for the first server will be sessions of the clones that are starting.
fn is_above(rules: &ScaleRules, load: ScaleLoad) -> bool {
    let servers = u64::from(load.fixed) + u64::from(load.clones);
    is_full(load) || load.sessions + load.waiting > servers * u64::from(rules.sessions_per_server)
}

/// Whether one clone fewer would be enough. The last server can leave only if there are no sessions.
fn is_below(rules: &ScaleRules, load: ScaleLoad) -> bool {
    let others = (u64::from(load.fixed) + u64::from(load.clones)).saturating_sub(1);
    let target = others * u64::from(rules.sessions_per_server);
    load.waiting == 0 && (load.sessions == 0 || load.sessions * 100 < target * DOWN_PERCENT)
}

/// How long `is_so` has been true without a break; `None`: it is false.
fn lasting(since: &mut Option<Instant>, is_so: bool, now: Instant) -> Option<Duration> {
    *since = is_so.then(|| since.unwrap_or(now));
    since.map(|since| now - since)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rules(min: u32, max: u32) -> ScaleRules {
        ScaleRules {
            min,
            max,
            sessions_per_server: 50,
            up_after: 5 * SECOND,
            down_after: 120 * SECOND,
            cooldown: 15 * SECOND,
        }
    }

    /// A pool, second by second, in which every step takes effect at once.
    struct Simulation {
        rules: ScaleRules,
        scaler: Scaler,
        now: Instant,
        clones: u32,
        /// Whether all clones are still starting, so that none is up.
        are_clones_starting: bool,
        /// The second of each step, and the number of clones after it.
        steps: Vec<(u64, u32)>,
        second: u64,
    }

    impl Simulation {
        fn new(rules: ScaleRules) -> Self {
            Self {
                clones: rules.min,
                are_clones_starting: false,
                rules,
                scaler: Scaler::default(),
                now: Instant::now(),
                steps: Vec::new(),
                second: 0,
            }
        }

        fn run_second(&mut self, sessions: u64, waiting: u64) {
            let load = ScaleLoad {
                sessions,
                waiting,
                has_server: self.clones > 0 && !self.are_clones_starting,
                fixed: 0,
                clones: self.clones,
            };
            match self.scaler.decide(&self.rules, None, load, self.now) {
                Some(ScaleStep::Up(more)) => self.clones += more,
                Some(ScaleStep::Down(fewer)) => self.clones -= fewer,
                None => {}
            }
            if self.clones != load.clones {
                self.steps.push((self.second, self.clones));
            }
            self.now += SECOND;
            self.second += 1;
        }

        fn run_seconds(&mut self, count: u64, sessions: u64, waiting: u64) {
            (0..count).for_each(|_| self.run_second(sessions, waiting));
        }

        /// How often the direction of the steps changed.
        fn turns(&self) -> usize {
            let counts: Vec<_> = std::iter::once(self.rules.min)
                .chain(self.steps.iter().map(|(_, clones)| *clones))
                .collect();
            let directions: Vec<_> = counts.windows(2).map(|two| two[1] > two[0]).collect();
            directions.windows(2).filter(|two| two[0] != two[1]).count()
        }
    }

    #[test]
    fn a_lasting_load_above_the_target_starts_one_clone_per_cooldown() {
        let mut pool = Simulation::new(rules(1, 8));
        pool.run_seconds(100, 50, 0);
        assert_eq!(pool.steps, []);
        pool.run_seconds(4, 400, 0); // a peak shorter than `up_after`
        pool.run_second(50, 0);
        pool.run_seconds(60, 400, 0);
        assert_eq!(pool.steps, [(110, 2), (125, 3), (140, 4), (155, 5)]);
    }

    #[test]
    fn a_pool_doubles_while_clients_wait() {
        let mut pool = Simulation::new(rules(1, 7));
        pool.run_seconds(60, 50, 3);
        assert_eq!(pool.steps, [(5, 2), (20, 4), (35, 7)]);
    }

    #[test]
    fn clients_that_wait_for_the_first_clone_count_as_its_sessions() {
        let mut pool = Simulation::new(rules(0, 8));
        pool.are_clones_starting = true; // no clone ever comes up
        pool.run_seconds(600, 0, 50);
        assert_eq!(pool.steps, [(0, 1)]);
        pool.run_seconds(60, 0, 120);
        assert_eq!(pool.steps, [(0, 1), (605, 2), (620, 3)]);
    }

    #[test]
    fn one_clone_is_removed_at_a_time_after_a_long_lull() {
        let mut pool = Simulation::new(rules(1, 8));
        pool.run_seconds(60, 399, 0);
        let grown = pool.clones;
        assert_eq!(grown, 5);
        pool.steps.clear();
        pool.run_seconds(119, 0, 0);
        assert_eq!(pool.steps, []);
        pool.run_seconds(500, 0, 0);
        let times: Vec<_> = pool.steps.windows(2).map(|two| two[1].0 - two[0].0).collect();
        // After a step, `below_since` is set one second later.
        assert_eq!((pool.clones, times), (1, vec![120 + 1; 3]));
    }

    #[test]
    fn the_first_client_wakes_a_sleeping_pool_at_once_and_it_sleeps_again() {
        let mut pool = Simulation::new(rules(0, 3));
        pool.run_seconds(1000, 0, 0);
        assert_eq!(pool.steps, []);
        pool.run_second(0, 1);
        assert_eq!(pool.steps, [(1000, 1)]);
        pool.run_seconds(1000, 1, 0);
        assert_eq!(pool.clones, 1, "one session keeps it awake");
        pool.run_seconds(122, 0, 0);
        assert_eq!(pool.clones, 0);
    }

    #[test]
    fn a_count_set_by_an_operator_is_clamped_to_the_bounds() {
        let decide = |wanted, clones| {
            let load = ScaleLoad {
                sessions: 0,
                waiting: 0,
                has_server: true,
                fixed: 0,
                clones,
            };
            Scaler::default().decide(&rules(1, 8), Some(wanted), load, Instant::now())
        };
        assert_eq!(decide(4, 1), Some(ScaleStep::Up(3)));
        assert_eq!(decide(4, 6), Some(ScaleStep::Down(2)));
        assert_eq!(decide(100, 6), Some(ScaleStep::Up(2)));
        assert_eq!(decide(4, 4), None);
    }

    /// A day with a peak at noon, and noise of 10 %.
    #[test]
    fn a_daily_load_causes_one_rise_and_one_fall() {
        let mut pool = Simulation::new(rules(1, 8));
        let mut noise: u32 = 1;
        for second in 0..86_400_u32 {
            let day = 1.0 - (f64::from(second) / 86_400.0 * std::f64::consts::TAU).cos();
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let drawn = f64::from(noise >> 16) / 65_536.0;
            pool.run_second((day * 160.0 * (0.9 + 0.2 * drawn)) as u64, 0);
        }
        let most = pool.steps.iter().map(|(_, clones)| *clones).max();
        assert_eq!((most, pool.clones, pool.turns()), (Some(7), 1, 1), "{:?}", pool.steps);
        assert_eq!(pool.steps.len(), 12, "{:?}", pool.steps);
    }

    proptest! {
        #[test]
        fn bounds_and_times_always_hold(
            bounds in (0_u32..4, 1_u32..9),
            loads in prop::collection::vec((0_u64..600, prop_oneof![3 => Just(0_u64), 1 => 0_u64..20], 1_u64..200), 1..60),
        ) {
            let (min, max) = (bounds.0, bounds.0.max(bounds.1));
            let mut pool = Simulation::new(rules(min, max));
            // The second of each step, whether it was `ScaleStep::Up`, and whether the pool was asleep before.
            let mut steps_taken = Vec::new();
            let mut before = min;
            for (sessions, waiting, seconds) in loads {
                for _ in 0..seconds {
                    let (step_count, was_asleep) = (pool.steps.len(), pool.clones == 0);
                    pool.run_second(sessions, waiting);
                    prop_assert!((min..=max).contains(&pool.clones));
                    if let Some((at, clones)) = pool.steps.get(step_count) {
                        prop_assert!(*clones <= before.max(1) * 2 || was_asleep);
                        prop_assert!(*clones >= before || before - clones == 1);
                        steps_taken.push((*at, *clones > before, was_asleep));
                        before = *clones;
                    }
                }
            }
            for two in steps_taken.windows(2) {
                let ((earlier, _, _), (later, is_up, was_asleep)) = (two[0], two[1]);
                prop_assert!(was_asleep || later - earlier >= 15, "one step per cooldown");
                prop_assert!(is_up || later - earlier > 120, "only after a lull");
            }
        }

        #[test]
        fn a_steady_load_reaches_a_stable_count(
            sessions in 0_u64..600,
            before in prop::collection::vec((0_u64..600, 0_u64..5, 1_u64..300), 0..10),
        ) {
            let mut pool = Simulation::new(rules(0, 12));
            for (sessions, waiting, seconds) in before {
                pool.run_seconds(seconds, sessions, waiting);
            }
            // Time for 12 steps down and 12 steps up.
            pool.run_seconds(12 * 121 + 12 * 15, sessions, 0);
            pool.steps.clear();
            pool.run_seconds(3600, sessions, 0);
            prop_assert_eq!(&pool.steps, &[]);
        }
    }
}
