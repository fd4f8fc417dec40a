//! Guards: who may pass, and how much they may take.
//!
//! A [`Guard`] has one set of counts, wherever it is used: a guard of two listeners limits both together. A session
//! that passes holds a [`GuardPass`]; dropping the pass returns what was counted. The counts of a guard outlast its
//! rules: a [successor](Guard::successor) with other rules continues the counts.
//!
//! Memory is bounded whatever clients do: the session limit of the process bounds live sessions, a table of fixed size
//! bounds the debts of sources (what each has taken of `rate_per_source`), and constants bound an operator's edits
//! ([`DenyEdit`]) and the refused sources that are counted ([`Guard::top_refused`]).
//!
//! **A new limit** needs a field of [`GuardRules`], set to `None` in [`Guard::without_rules`]; a [`GuardReason`] if it
//! refuses clients; a key in `config/parse/guard.rs`, `config/keys.rs`, `conf/full.toml`, `docs/limits.md` and
//! `tests/it/config/schema.rs`; and a comparison in `plan/changed/guard.rs`. If HAProxy or nginx has this limit,
//! `import` converts it. A limit of bandwidth is a bucket in [`Throttle`]: [`throttle`] makes the `Throttle` of a
//! session from its passes, and `relay` asks the `Throttle` before each read.

mod client_source;
mod networks;
mod rate;
mod debts;
mod sessions;
mod refused;
mod edits;
mod byte_bucket;
mod bandwidth;
mod lines;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ipnet::IpNet;
use tokio::time::Instant;

use crate::addr::ClientAddr;
pub use bandwidth::{DirectionThrottle, Throttle};
use byte_bucket::ByteBucket;
use client_source::HashedClientSource;
pub use client_source::{ClientSource, SourceBits};
use debts::DebtTable;
use edits::DenyEdits;
pub use edits::{DenyEdit, EDITS_MAX};
pub use lines::{LINES_PER_SECOND, LineBudget};
pub use networks::NetworkSet;
pub use rate::Rate;
use rate::{Nanos, SharedBucket, nanos};
pub use reason::GuardReason;
use reason::ReasonCounts;
use refused::RefusedSources;
pub use rules::{GuardRules, RefuseWith};
use sessions::{CountedSession, Full, SessionTable};

/// The index of a guard among those of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuardId(pub usize);

/// A guard in force.
#[derive(Debug)]
pub struct Guard {
    name: Arc<str>,
    rules: GuardRules,
    /// What each source has taken of `rate_per_source`; `None`: there is no such limit.
    debts: Option<Arc<DebtTable>>,
    counts: Arc<GuardCounts>,
}

/// The counts, which stay when the rules change.
#[derive(Debug)]
struct GuardCounts {
    /// What [`Nanos`] are counted from.
    epoch: Instant,
    sessions: Arc<SessionTable>,
    rate: SharedBucket,
    up: Arc<ByteBucket>,
    down: Arc<ByteBucket>,
    edits: DenyEdits,
    refusals: ReasonCounts,
    reports: ReasonCounts,
    refused_sources: RefusedSources,
    lines: LineBudget,
}

/// A session that a guard has let pass. Dropping it ends the session for the guard.
#[derive(Debug)]
#[must_use = "when it is dropped, the session no longer counts"]
pub struct GuardPass {
    guard: Arc<Guard>,
    /// `None`: the guard only reports that it would refuse the client, and does not count the session.
    _session: Option<CountedSession>,
    would_refuse: Option<GuardReason>,
}

impl Guard {
    /// A guard that has counted nothing yet.
    #[must_use]
    pub fn new(name: Arc<str>, rules: GuardRules) -> Self {
        let counts = GuardCounts {
            epoch: Instant::now(),
            sessions: SessionTable::new(),
            rate: SharedBucket::default(),
            up: Arc::new(ByteBucket::new(rules.bandwidth)),
            down: Arc::new(ByteBucket::new(rules.bandwidth)),
            edits: DenyEdits::default(),
            refusals: ReasonCounts::default(),
            reports: ReasonCounts::default(),
            refused_sources: RefusedSources::default(),
            lines: LineBudget::new(),
        };
        Self {
            name,
            debts: rules
                .rate_per_source
                .map(|_| Arc::new(DebtTable::new(rules.sources_max))),
            rules,
            counts: Arc::new(counts),
        }
    }

    /// This guard with other rules: it goes on with the counts, the debts and the edits. Sessions under way keep the
    /// limits of their own bandwidth; [`Self::apply_bandwidth`] changes the common bandwidth.
    #[must_use]
    pub fn successor(&self, rules: GuardRules) -> Self {
        let debts = match (rules.rate_per_source, &self.debts) {
            (None, _) => None,
            (Some(_), Some(debts)) if rules.sources_max == self.rules.sources_max => Some(Arc::clone(debts)),
            (Some(_), Some(debts)) => Some(Arc::new(
                debts.resized(rules.sources_max, self.counts.nanos(Instant::now())),
            )),
            (Some(_), None) => Some(Arc::new(DebtTable::new(rules.sources_max))),
        };
        Self {
            name: Arc::clone(&self.name),
            rules,
            debts,
            counts: Arc::clone(&self.counts),
        }
    }

    /// This guard without any rule. It keeps the edits while no guard of this name is configured.
    #[must_use]
    pub fn without_rules(&self) -> Self {
        self.successor(GuardRules {
            allow: None,
            deny: NetworkSet::default(),
            sessions: None,
            sessions_per_source: None,
            rate: None,
            rate_per_source: None,
            bandwidth: None,
            bandwidth_per_session: None,
            by: self.rules.by,
            sources_max: self.rules.sources_max,
            report_only: self.rules.report_only,
            refuse_with: self.rules.refuse_with,
        })
    }

    /// Puts the `bandwidth` of its rules, which all sessions share, in force; with `report_only`, none. It also applies
    /// to a session under way if a `bandwidth` limited that session when it began.
    pub fn apply_bandwidth(&self) {
        self.set_bandwidth(self.rules.bandwidth.filter(|_| !self.rules.report_only));
    }

    /// Ends the limit of the shared `bandwidth` for sessions under way. To be called when the guard is no longer in
    /// force.
    pub fn remove_bandwidth(&self) {
        self.set_bandwidth(None);
    }

    fn set_bandwidth(&self, bandwidth: Option<u64>) {
        let now = Instant::now();
        self.counts.up.set_rate(bandwidth, now);
        self.counts.down.set_rate(bandwidth, now);
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its rules.
    #[must_use]
    pub fn rules(&self) -> &GuardRules {
        &self.rules
    }

    /// Asks whether a client may pass.
    ///
    /// # Errors
    /// Why it may not. The refusal is counted.
    pub fn admit(self: &Arc<Self>, client: ClientAddr, now: Instant) -> Result<GuardPass, GuardReason> {
        let source = HashedClientSource::from(ClientSource::new(client.host(), self.rules.by));
        let reason = match self.check(client, source, now) {
            Ok(session) => return Ok(self.pass(Some(session), None)),
            Err(reason) => reason,
        };
        let counts = &self.counts;
        counts.refused_sources.record(source.source);
        if self.rules.report_only {
            counts.reports.add(reason);
            return Ok(self.pass(None, Some(reason)));
        }
        counts.refusals.add(reason);
        Err(reason)
    }

    fn pass(self: &Arc<Self>, session: Option<CountedSession>, would_refuse: Option<GuardReason>) -> GuardPass {
        GuardPass {
            guard: Arc::clone(self),
            _session: session,
            would_refuse,
        }
    }

    /// Checks the rules in turn, the limit of each source before the same limit for all clients together: a source that
    /// takes too much does not use up the limit of all. A client that is refused takes nothing.
    fn check(
        &self,
        client: ClientAddr,
        source: HashedClientSource,
        now: Instant,
    ) -> Result<CountedSession, GuardReason> {
        let (rules, counts) = (&self.rules, &self.counts);
        if let Some(reason) = self.refusal_of_address(client, now) {
            return Err(reason);
        }
        let session = counts.sessions.enter(source, rules.sessions, rules.sessions_per_source);
        let session = session.map_err(|full| match full {
            Full::All => GuardReason::Sessions,
            Full::Source => GuardReason::SessionsPerSource,
        })?;
        let now_nanos = counts.nanos(now);
        let per_source = rules.rate_per_source.zip(self.debts.as_ref());
        if per_source.is_some_and(|(rate, debts)| !debts.take(source, rate, now_nanos)) {
            return Err(GuardReason::RatePerSource);
        }
        if rules.rate.is_some_and(|rate| !counts.rate.take(rate, now_nanos)) {
            if let Some((rate, debts)) = per_source {
                debts.give_back(source, rate);
            }
            return Err(GuardReason::Rate);
        }
        Ok(session)
    }

    /// Why a client's address may not pass; `None`: it may. Counts nothing.
    #[must_use]
    pub fn refusal_of_address(&self, client: ClientAddr, now: Instant) -> Option<GuardReason> {
        let address = client.ip();
        let is_denied = address.is_some_and(|address| self.counts.edits.denies(address, now));
        if is_denied {
            Some(GuardReason::Deny)
        } else {
            self.rules.refusal_of_address(address)
        }
    }

    /// Takes a line of the log for a refusal before the client's first message (a ClientHello, or a StartupMessage of
    /// PostgreSQL), as [`LineBudget::take_line`]: returns how many refusals were not logged since the last line;
    /// `None`: this one is not to be logged either.
    #[must_use]
    pub fn take_line(&self, now: Instant) -> Option<u64> {
        self.counts.lines.take_line(now)
    }

    /// Denies a network from now on, until the edit ends; sessions under way go on. The edit replaces one of the same
    /// network. Returns whether there was room for it: a guard has at most [`EDITS_MAX`] edits.
    pub fn deny(&self, edit: DenyEdit, now: Instant) -> bool {
        self.counts.edits.add(edit, now)
    }

    /// Undoes the edit of [`Self::deny`] for exactly this network. Returns whether there was one.
    pub fn undo(&self, network: IpNet, now: Instant) -> bool {
        self.counts.edits.remove(network, now)
    }

    /// The edits that hold now, the oldest first.
    #[must_use]
    pub fn edits(&self, now: Instant) -> Vec<DenyEdit> {
        self.counts.edits.list(now)
    }

    /// How many edits hold now.
    #[must_use]
    pub fn edit_count(&self, now: Instant) -> usize {
        self.counts.edits.count(now)
    }

    /// Open sessions.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.counts.sessions.open()
    }

    /// Sources with open sessions.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.counts.sessions.sources()
    }

    /// The sources with the most open sessions, at most `shown_max`.
    #[must_use]
    pub fn top_sessions(&self, shown_max: usize) -> Vec<(ClientSource, u32)> {
        self.counts.sessions.top(shown_max)
    }

    /// The sources that were refused most often, or would be without `report_only`, at most `shown_max`. The counts may
    /// be too high, see `RefusedSources`.
    #[must_use]
    pub fn top_refused(&self, shown_max: usize) -> Vec<(ClientSource, u64)> {
        self.counts.refused_sources.top(shown_max)
    }

    /// Clients refused so far, by reason.
    #[must_use]
    pub fn refusals(&self) -> [(GuardReason, u64); GuardReason::ALL.len()] {
        self.counts.refusals.all()
    }

    /// Clients that passed only because of `report_only`, by reason.
    #[must_use]
    pub fn reports(&self) -> [(GuardReason, u64); GuardReason::ALL.len()] {
        self.counts.reports.all()
    }

    /// How many unpaid debts were forgotten for lack of room in their table; 0 without `rate_per_source`.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.debts.as_ref().map_or(0, |debts| debts.evictions())
    }
}

impl GuardCounts {
    fn nanos(&self, now: Instant) -> Nanos {
        nanos(now.saturating_duration_since(self.epoch))
    }
}

impl GuardPass {
    /// The guard.
    #[must_use]
    pub fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// Why the guard would refuse the client without `report_only`; `None`: it would not.
    #[must_use]
    pub fn would_refuse(&self) -> Option<GuardReason> {
        self.would_refuse
    }
}

/// The bandwidth limits that the guards of a session's passes set for it; `None`: no guard limits its bandwidth.
#[must_use]
pub fn throttle(passes: &[GuardPass]) -> Option<Box<Throttle>> {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for guard in passes.iter().map(GuardPass::guard) {
        let (rules, counts) = (&guard.rules, &guard.counts);
        if rules.report_only {
            continue;
        }
        if rules.bandwidth.is_some() {
            up.push(Arc::clone(&counts.up));
            down.push(Arc::clone(&counts.down));
        }
        if let Some(rate) = rules.bandwidth_per_session {
            up.push(Arc::new(ByteBucket::new(Some(rate))));
            down.push(Arc::new(ByteBucket::new(Some(rate))));
        }
    }
    (!up.is_empty()).then(|| Box::new(Throttle::new(up, down)))
}
