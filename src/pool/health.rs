//! Whether a server may be used: two pure machines over results and a clock that is handed in.
//!
//! [`Checks`] follows the active checks (rise and fall); [`Ejection`] follows the connects of real sessions, and how
//! these end. The first is written by the server's prober alone, the second by sessions.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::served::{AT_ONCE, Unserved};
use crate::text::Reason;

/// What the active checks say of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// No result yet: used only when no server that is up is left.
    Unchecked,
    /// In use.
    Up,
    /// Out of use.
    Down,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Good.
    Pass,
    /// Bad, and why. It takes a few in a row to change a state.
    Fail(Reason),
    /// The server is well, and not what is wanted (its role); which takes it out at once, as does a good check put it
    /// back in after that.
    Unfit(Reason),
}

/// How many results in a row change a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good checks that bring a server back; at least 1.
    pub rise: u32,
    /// Bad checks that take a server out; at least 1.
    pub fall: u32,
}

/// The machine of active checks.
#[derive(Clone, Copy, Debug)]
pub struct Checks {
    state: Checked,
    /// Results in a row that were the same as the latest one.
    streak: u32,
    latest: Latest,
    /// The latest check that could tell found the server to be what is not wanted; or none could yet, and it matters.
    unfit: bool,
}

/// What the latest check amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latest {
    /// There are none.
    Off,
    None,
    Pass,
    Fail,
    Unfit,
}

impl Checks {
    /// A server nobody has checked yet.
    #[must_use]
    pub const fn on() -> Self {
        Self {
            state: Checked::Unchecked,
            streak: 0,
            latest: Latest::None,
            unfit: false,
        }
    }

    /// A server that is not checked counts as checked.
    #[must_use]
    pub const fn off() -> Self {
        Self {
            state: Checked::Up,
            streak: 0,
            latest: Latest::Off,
            unfit: false,
        }
    }

    /// Takes one result in; the new state if it changed. The first result alone decides the first state.
    pub fn record(&mut self, verdict: &Verdict, thresholds: Thresholds) -> Option<Checked> {
        let before = self.latest;
        let (latest, unfit) = match verdict {
            Verdict::Pass => (Latest::Pass, false),
            Verdict::Fail(_) => (Latest::Fail, self.unfit), // out of reach, it is what it was
            Verdict::Unfit(_) => (Latest::Unfit, true),
        };
        self.unfit = unfit;
        self.streak = if latest == before {
            self.streak.saturating_add(1)
        } else {
            1
        };
        self.latest = latest;
        let next = match (self.state, latest) {
            (Checked::Unchecked, Latest::Pass) => Checked::Up,
            (Checked::Unchecked, _) | (_, Latest::Unfit) => Checked::Down,
            (Checked::Up, Latest::Fail) if self.streak >= thresholds.fall => Checked::Down,
            // It was well all the time.
            (Checked::Down, Latest::Pass) if self.streak >= thresholds.rise || before == Latest::Unfit => Checked::Up,
            (same, _) => same,
        };
        (next != self.state).then(|| {
            self.state = next;
            next
        })
    }

    /// The state the results so far amount to.
    #[must_use]
    pub const fn state(&self) -> Checked {
        self.state
    }

    /// Whether the server is checked at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.latest != Latest::Off
    }

    /// Whether the latest check was not good, whatever the state.
    #[must_use]
    pub const fn failing(&self) -> bool {
        matches!(self.latest, Latest::Fail | Latest::Unfit)
    }

    /// Whether the server, out of reach or not, is known to be what is not wanted, or not known to be what is.
    #[must_use]
    pub const fn unfit(&self) -> bool {
        self.unfit
    }

    /// What it is matters, and nothing is known of it from now on.
    pub const fn doubt(&mut self) {
        self.unfit = true;
    }
}

/// What the checks say, and since when.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) machine: Checks,
    pub(super) reason: Option<Reason>,
    pub(super) since: SystemTime,
}

impl Story {
    pub(super) fn new(is_checked: bool) -> Self {
        Self {
            machine: if is_checked { Checks::on() } else { Checks::off() },
            reason: None,
            since: SystemTime::now(),
        }
    }
}

/// How a server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What its checks say.
    pub checked: Checked,
    /// What was wrong at its latest check; `None`: nothing.
    pub reason: Option<Reason>,
    /// Since when its checks say so.
    pub since: SystemTime,
}

/// When and for how long failed connects take a server out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectLimits {
    /// Failed connects in a row that eject; at least 1.
    pub after: u32,
    /// The first back-off.
    pub first: Duration,
    /// The longest back-off.
    pub longest: Duration,
    /// At most this share of a pool's servers may be out at once, 0 to 100.
    pub percent_max: u32,
    /// Whether a reset of the server after bytes of the client counts, too.
    pub on_reset: bool,
}

/// On what terms a session has its place on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// As any other.
    Free,
    /// It tries a server that is out, for all.
    Trial,
}

/// The machine of passive ejection.
///
/// A back-off that has run out lets *one* session try the server; the others follow when that one has connected. A
/// server that swallows packets thus costs one session a back-off, not everybody a timeout.
///
/// Sessions that a server has not served count as failed connects once they were for three client addresses. From the
/// first of them on, a connect that works proves nothing: the server is well again when a session that began later has
/// been served, or when one has lasted for [`AT_ONCE`], which is looked at when the next one connects. Nor do good checks
/// put such a server back: they do not meet what sessions meet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ejection {
    /// Failed connects in a row, while in use.
    failures: u32,
    /// Ejections since the last connect that worked: the exponent of the back-off.
    times: u32,
    out: Option<Out>,
    unserved: Unserved,
    /// Of the sessions that have connected since the latest that was not served: when the first did.
    connected: Option<Instant>,
}

/// Of a server that is out.
#[derive(Clone, Copy, Debug)]
struct Out {
    /// When a trial is granted, or granted again if whoever has claimed it never reports.
    until: Instant,
    /// Good checks in a row since.
    good_checks: u32,
}

impl Ejection {
    /// Whether the server is out.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        self.out.is_some()
    }

    /// Whether nothing is on record against the server, not even the length of its next back-off.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.failures == 0 && self.times == 0 && self.out.is_none() && self.unserved.is_empty()
    }

    /// A connect failed. Returns the back-off if that takes the server out, or keeps it out after a trial.
    /// `permitted` is the pool's word: others are left, and not too many are out already.
    pub fn failed(&mut self, now: Instant, limits: EjectLimits, permitted: bool, terms: Terms) -> Option<Duration> {
        if self.out.is_none() {
            self.failures = self.failures.saturating_add(1);
        }
        self.judge(now, limits, permitted, terms)
    }

    /// A session of this client was not served. Returns and takes the same as [`Self::failed`].
    pub fn unserved(
        &mut self,
        client: IpAddr,
        now: Instant,
        limits: EjectLimits,
        permitted: bool,
        terms: Terms,
    ) -> Option<Duration> {
        self.connected = None;
        if self.out.is_none() {
            self.unserved.add(client, now);
        }
        self.judge(now, limits, permitted, terms)
    }

    fn judge(&mut self, now: Instant, limits: EjectLimits, permitted: bool, terms: Terms) -> Option<Duration> {
        match (self.out, terms) {
            (Some(_), Terms::Trial) => {}
            // Sessions that were on their way when it was taken out say nothing new: however many they are, they
            // do not lengthen the back-off.
            (Some(_), Terms::Free) => return None,
            (None, _) => {
                if self.failures.saturating_add(self.unserved.counted()) < limits.after || !permitted {
                    return None;
                }
            }
        }
        let doubled = 1u32.checked_shl(self.times).unwrap_or(u32::MAX);
        let back_off = limits.first.saturating_mul(doubled).min(limits.longest);
        self.times = self.times.saturating_add(1);
        self.out = Some(Out {
            until: after(now, back_off),
            good_checks: 0,
        });
        Some(back_off)
    }

    /// A connect worked: all is forgiven, unless sessions were not served lately. Returns whether that put the server
    /// back in use.
    pub fn succeeded(&mut self, now: Instant, terms: Terms) -> bool {
        let one_has_lasted = self.connected.is_some_and(|connected| now >= connected + AT_ONCE);
        if self.unserved.is_empty() || one_has_lasted {
            return self.forgive();
        }
        self.failures = 0;
        self.connected.get_or_insert(now);
        if let (Some(out), Terms::Trial) = (&mut self.out, terms) {
            out.until = after(now, AT_ONCE); // until then this session shows what the server is worth
        }
        false
    }

    /// A session that connected at this time was served: all is forgiven, if that is news. Returns whether it put the
    /// server back in use.
    pub fn served(&mut self, connected: Instant) -> bool {
        self.unserved.is_older_than(connected) && self.forgive()
    }

    /// A session is over and proves nothing, so that it has not lasted either.
    pub const fn learnt_nothing(&mut self) {
        self.connected = None;
    }

    fn forgive(&mut self) -> bool {
        let was_out = self.is_out();
        *self = Self::default();
        was_out
    }

    /// An active check has a result. Enough good ones in a row since the server was taken out put it back in use at
    /// once, with the length of the next back-off remembered until a connect works; but not one that was taken out for
    /// sessions it did not serve. Returns whether they do.
    pub fn checked(&mut self, pass: bool, rise: u32) -> bool {
        let Some(out) = &mut self.out else { return false };
        out.good_checks = if pass { out.good_checks.saturating_add(1) } else { 0 };
        let lifted = out.good_checks >= rise && self.unserved.is_empty();
        if lifted {
            self.failures = 0;
            self.out = None;
        }
        lifted
    }

    /// Whether a trial would be granted.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.out.is_some_and(|out| now >= out.until)
    }

    /// When the trial is due; `None`: the server is not out.
    #[must_use]
    pub fn due_at(&self) -> Option<Instant> {
        self.out.map(|out| out.until)
    }

    /// Claims the one trial of an expired back-off, for as long as a connect may take: if whoever claimed it never
    /// reports, the next one may try after that.
    pub fn claim_trial(&mut self, now: Instant, connect_timeout: Duration) -> bool {
        match &mut self.out {
            Some(out) if now >= out.until => {
                out.until = after(now, connect_timeout);
                true
            }
            _ => false,
        }
    }
}

/// So much later; times no clock can tell count as a century, for they come from a file and must not panic.
fn after(now: Instant, wait: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(wait).unwrap_or_else(|| now + CENTURY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_THREE: Thresholds = Thresholds { rise: 2, fall: 3 };
    const LIMITS: EjectLimits = EjectLimits {
        after: 3,
        first: Duration::from_secs(1),
        longest: Duration::from_secs(30),
        percent_max: 50,
        on_reset: false,
    };

    fn verdict(sign: char) -> Verdict {
        match sign {
            '+' => Verdict::Pass,
            '-' => Verdict::Fail("gone".into()),
            _ => Verdict::Unfit("a replica".into()),
        }
    }

    fn run(machine: &mut Checks, results: &str) -> Vec<Option<Checked>> {
        results
            .chars()
            .map(|c| machine.record(&verdict(c), TWO_THREE))
            .collect()
    }

    #[test]
    fn what_is_well_but_not_wanted_goes_at_once_and_is_back_at_once() {
        use Checked::{Down, Up};
        assert_eq!(
            run(&mut Checks::on(), "+?+?"),
            [Some(Up), Some(Down), Some(Up), Some(Down)]
        );
        assert_eq!(run(&mut Checks::on(), "?+"), [Some(Down), Some(Up)]);
        // Once it was out of reach it takes a few good ones again.
        assert_eq!(
            run(&mut Checks::on(), "+?-++"),
            [Some(Up), Some(Down), None, None, Some(Up)]
        );
        assert_eq!(run(&mut Checks::on(), "+-?+"), [Some(Up), None, Some(Down), Some(Up)]);
    }

    #[test]
    fn the_first_result_alone_decides() {
        assert_eq!(run(&mut Checks::on(), "+"), [Some(Checked::Up)]);
        assert_eq!(run(&mut Checks::on(), "-"), [Some(Checked::Down)]);
    }

    #[test]
    fn fall_and_rise_count_results_in_a_row() {
        let mut machine = Checks::on();
        assert_eq!(
            run(&mut machine, "+--+--"),
            [Some(Checked::Up), None, None, None, None, None]
        );
        assert_eq!(run(&mut machine, "-"), [Some(Checked::Down)]);
        assert_eq!(run(&mut machine, "+-+"), [None, None, None]);
        assert_eq!(run(&mut machine, "+"), [Some(Checked::Up)]);
    }

    /// A server that three failed connects have just taken out.
    fn ejected(now: Instant) -> Ejection {
        let mut ejection = Ejection::default();
        let back_offs = [(); 3].map(|()| ejection.failed(now, LIMITS, true, Terms::Free));
        assert_eq!(back_offs, [None, None, Some(LIMITS.first)]);
        ejection
    }

    #[tokio::test(start_paused = true)]
    async fn the_back_off_doubles_up_to_its_bound_and_a_success_forgets_it() {
        let mut now = Instant::now();
        let mut ejection = ejected(now);
        let mut back_off = LIMITS.first;
        let mut next = || {
            now += back_off;
            assert!(ejection.claim_trial(now, Duration::from_secs(3)));
            back_off = ejection
                .failed(now, LIMITS, false, Terms::Trial)
                .expect("a failed trial keeps it out, permitted or not");
            back_off.as_secs()
        };
        assert_eq!([(); 6].map(|()| next()), [2, 4, 8, 16, 30, 30]);
        assert!(ejection.succeeded(now, Terms::Trial));
        assert!(ejection.is_clean());
        assert_eq!(ejection.failed(now, LIMITS, true, Terms::Free), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_failures_is_one_ejection() {
        let now = Instant::now();
        let mut ejection = ejected(now);
        assert!((0..100).all(|_| ejection.failed(now, LIMITS, true, Terms::Free).is_none()));
        assert!(ejection.is_due(now + LIMITS.first));
    }

    #[tokio::test(start_paused = true)]
    async fn good_checks_count_from_the_ejection_on_and_a_connect_alone_clears_the_record() {
        let now = Instant::now();
        let mut ejection = ejected(now);
        let mut check = |pass| ejection.checked(pass, 2);
        assert_eq!(
            [check(true), check(false), check(true), check(true)],
            [false, false, false, true]
        );
        assert!(!ejection.is_out() && !ejection.is_clean());
        let again = [(); 3].map(|()| ejection.failed(now, LIMITS, true, Terms::Free));
        assert_eq!(again, [None, None, Some(LIMITS.first * 2)]);
        ejection.succeeded(now, Terms::Free);
        assert!(ejection.is_clean());
    }

    #[tokio::test(start_paused = true)]
    async fn no_length_of_a_back_off_panics() {
        let limits = EjectLimits {
            first: Duration::MAX,
            longest: Duration::MAX,
            after: 1,
            percent_max: 100,
            on_reset: false,
        };
        let mut ejection = Ejection::default();
        assert_eq!(
            ejection.failed(Instant::now(), limits, true, Terms::Free),
            Some(Duration::MAX)
        );
        assert!(!ejection.is_due(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn without_permission_a_server_stays_but_its_failures_are_remembered() {
        let mut ejection = Ejection::default();
        let now = Instant::now();
        assert!((0..9).all(|_| ejection.failed(now, LIMITS, false, Terms::Free).is_none()));
        assert!(ejection.failed(now, LIMITS, true, Terms::Free).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_back_off_grants_one_trial() {
        let start = Instant::now();
        let mut ejection = ejected(start);
        let connect = Duration::from_secs(3);
        assert!(!ejection.claim_trial(start, connect));
        let later = start + Duration::from_secs(1);
        assert!(ejection.claim_trial(later, connect));
        assert!(!ejection.claim_trial(later, connect), "the trial is taken");
        assert!(
            ejection.claim_trial(later + connect, connect),
            "whoever took it never reported"
        );
        assert_eq!(
            ejection.failed(later, LIMITS, false, Terms::Free),
            None,
            "a straggler's failure is not the trial's"
        );
        assert_eq!(
            ejection.failed(later, LIMITS, false, Terms::Trial),
            Some(Duration::from_secs(2)),
            "it stays out"
        );
    }
    /// The address of client number `n`.
    fn client(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    /// A server that has taken `clients`, each of another address, and served none.
    fn unserving(clients: u8, now: Instant) -> (Ejection, Option<Duration>) {
        let mut ejection = Ejection::default();
        let mut back_off = None;
        for n in 0..clients {
            assert!(!ejection.succeeded(now, Terms::Free));
            back_off = ejection.unserved(client(n), now, LIMITS, true, Terms::Free);
        }
        (ejection, back_off)
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_not_served_eject_once_they_were_for_three_addresses() {
        let now = Instant::now();
        assert_eq!(unserving(2, now).1, None);
        assert_eq!(unserving(3, now).1, Some(LIMITS.first));
        let (mut ejection, _) = unserving(2, now);
        for _ in 0..100 {
            assert_eq!(ejection.unserved(client(0), now, LIMITS, true, Terms::Free), None);
        }
        let (mut ejection, _) = unserving(2, now);
        assert_eq!(ejection.unserved(client(2), now, LIMITS, false, Terms::Free), None);
        assert!(ejection.unserved(client(2), now, LIMITS, true, Terms::Free).is_some());
        let seven = EjectLimits { after: 7, ..LIMITS };
        let (mut ejection, _) = unserving(2, now);
        let outs = [(); 5].map(|()| ejection.unserved(client(9), now, seven, true, Terms::Free).is_some());
        assert_eq!(outs, [false, false, false, false, true], "the seventh");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_served_forgives_those_before_it_that_were_not() {
        let start = Instant::now();
        let now = start + Duration::from_secs(5);
        let (mut ejection, _) = unserving(2, now);
        ejection.served(start);
        assert!(!ejection.is_clean(), "it had connected when all was well");
        ejection.served(now);
        assert!(ejection.is_clean());
        // Of a server whose connects fail, an old session says nothing.
        let mut ejection = ejected(now);
        assert!(!ejection.served(now) && ejection.is_out());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_lasts_forgives_them_when_the_next_one_connects() {
        let now = Instant::now();
        let (mut ejection, _) = unserving(2, now);
        ejection.succeeded(now, Terms::Free);
        ejection.succeeded(now + AT_ONCE / 2, Terms::Free);
        assert!(!ejection.is_clean());
        ejection.succeeded(now + AT_ONCE, Terms::Free);
        assert!(ejection.is_clean());
        let (mut ejection, _) = unserving(2, now);
        ejection.succeeded(now, Terms::Free);
        ejection.learnt_nothing();
        ejection.succeeded(now + AT_ONCE, Terms::Free);
        assert!(!ejection.is_clean(), "its client left at once");
    }

    #[tokio::test(start_paused = true)]
    async fn one_session_at_a_time_tries_whether_sessions_are_served_again() {
        let mut now = Instant::now();
        let (mut ejection, _) = unserving(3, now);
        assert!(!ejection.checked(true, 1), "checks do not see it");
        let mut back_off = LIMITS.first;
        for _ in 0..3 {
            now += back_off;
            assert!(ejection.claim_trial(now, Duration::from_secs(3)));
            assert!(!ejection.succeeded(now, Terms::Trial), "a connect proves nothing");
            assert!(!ejection.is_due(now));
            back_off = ejection.unserved(client(7), now, LIMITS, false, Terms::Trial).unwrap();
        }
        assert_eq!(back_off, LIMITS.first * 8);
        now += back_off;
        assert!(ejection.claim_trial(now, Duration::from_secs(3)));
        assert!(!ejection.succeeded(now, Terms::Trial));
        now += AT_ONCE;
        assert!(ejection.claim_trial(now, Duration::from_secs(3)));
        assert!(ejection.succeeded(now, Terms::Trial), "the session before has lasted");
        assert!(ejection.is_clean());
    }
}
