//! Which server is the primary according to the Sentinels of a check, all their answers taken together.
//!
//! The first rule that applies decides:
//! 1. The server that more than half of them name is the primary, even if another Sentinel names one in a higher epoch:
//!    that Sentinel may be of another group. But if the latest primary was named in a higher epoch, one of these must
//!    hold as well:
//!    - the epoch of the majority is higher than when this rule last decided, or it has not decided yet;
//!    - all Sentinels agree: they may have been set up anew;
//!    - the majority has named the server in one epoch for [`AGREED_AFTER`]: again, they may have been set up anew.
//! 2. Otherwise the server that is named in the highest epoch is the primary. The latest primary counts as one that is
//!    named: a Sentinel that was cut off from the others must not bring back an old primary.
//!
//! Where rule 2 decides, the server that rule 1 chose last also counts as the primary, as long as one Sentinel still
//! names it in the same epoch: a Sentinel that is wrong must not make the primary unfit while another Sentinel is down.
//! If the higher epoch is the right one, both servers may call themselves primary. Then the pool takes the one in the
//! higher epoch.
//!
//! For example, all of three Sentinels name `a` in epoch 4. Then two of them are down, and the third one names
//! - `b` in epoch 3: `a` stays the primary;
//! - `b` in epoch 5: `b` is the primary.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::check::CheckTarget;

/// A majority that has named the same primary in the same epoch for this long counts even if a higher epoch was seen
/// before. Sentinels tell each other of a failover within seconds.
const AGREED_AFTER: Duration = Duration::from_secs(30);

/// The server that a Sentinel names as the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedPrimary {
    /// Its address or host name, as Sentinel knows it.
    pub(super) host: String,
    pub(super) port: u16,
    /// `run_id` of the server; empty: Sentinel does not know it yet.
    pub(super) run_id: String,
    /// The configuration epoch. A failover begins a new one with a higher number; the majority of the Sentinels agrees
    /// on it.
    pub(super) epoch: u32,
}

impl NamedPrimary {
    /// Whether another Sentinel names the same server.
    fn is_same_server(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }

    /// Whether another Sentinel names the same server in the same epoch.
    fn is_same_naming(&self, other: &Self) -> bool {
        self.is_same_server(other) && self.epoch == other.epoch
    }

    /// Whether this is the server that is checked. Sentinel may know the server under another address: then the run ids
    /// are compared. `run_id`: what the checked server says; empty: not known.
    pub(super) fn is_target(&self, target: &CheckTarget, run_id: &str) -> bool {
        let is_host = match self.host.parse::<IpAddr>() {
            Ok(ip) => target.address.ip() == Some(ip),
            Err(_) => target
                .host
                .as_deref()
                .is_some_and(|host| host.eq_ignore_ascii_case(&self.host)),
        };
        is_host && target.address.port() == Some(self.port) || !run_id.is_empty() && self.run_id == run_id
    }
}

/// What the Sentinels say together.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    /// The primary.
    pub(super) primary: NamedPrimary,
    /// Whether all Sentinels name this primary, or more than half of them have named it in one epoch for
    /// [`AGREED_AFTER`]. Then it counts even if the pool remembers a higher epoch.
    pub(super) is_agreed: bool,
    /// If rule 2 decided: the primary when rule 1 last decided, if a Sentinel still names it in the same epoch.
    pub(super) still_named: Option<NamedPrimary>,
}

impl Naming {
    /// The epoch in which the target is named the primary, and whether the Sentinels agree on that; `None`: the target
    /// is not the primary.
    pub(super) fn epoch_of(&self, target: &CheckTarget, run_id: &str) -> Option<(u32, bool)> {
        let still_named = self.still_named.iter().map(|named| (named, false));
        let mut all = std::iter::once((&self.primary, self.is_agreed)).chain(still_named);
        let (named, is_agreed) = all.find(|(named, _)| named.is_target(target, run_id))?;
        Some((named.epoch, is_agreed))
    }
}

/// What the Sentinels have said.
#[derive(Debug, Default)]
pub(super) struct SentinelAnswers {
    /// The primary after the latest check.
    primary: Option<NamedPrimary>,
    /// The primary when rule 1 last decided.
    last_by_majority: Option<NamedPrimary>,
    /// The server that more than half of them named at the latest check; it may not count yet.
    majority: Option<Majority>,
}

/// A server that more than half of the Sentinels name.
#[derive(Debug)]
struct Majority {
    named: NamedPrimary,
    /// Since when they have named it, in this epoch.
    since: Instant,
    is_unanimous: bool,
}

impl SentinelAnswers {
    /// Adds the answers of a check, `reported`. Returns what the Sentinels say now, by the rules of this module;
    /// `None`: none has ever named a primary. `asked_count`: how many Sentinels were asked.
    pub(super) fn update(&mut self, reported: Vec<NamedPrimary>, asked_count: usize, now: Instant) -> Option<Naming> {
        self.update_majority(&reported, asked_count, now);
        self.follow_majority(now)
            .or_else(|| self.follow_highest_epoch(reported))
    }

    /// Sets `majority` by the answers of this check.
    fn update_majority(&mut self, reported: &[NamedPrimary], asked_count: usize, now: Instant) {
        let votes = |named: &NamedPrimary| reported.iter().filter(|other| other.is_same_server(named)).count();
        let by_majority = reported.iter().filter(|named| 2 * votes(named) > asked_count);
        // Of several answers in one epoch, one with a run id is taken: the server is recognized by it at each of its
        // addresses.
        let named = by_majority.max_by_key(|named| (named.epoch, !named.run_id.is_empty()));
        let before = self.majority.take();
        self.majority = named.map(|named| Majority {
            named: named.clone(),
            since: before
                .filter(|before| before.named.is_same_naming(named))
                .map_or(now, |before| before.since),
            is_unanimous: votes(named) == asked_count,
        });
    }

    /// Rule 1. `None`: it does not apply.
    fn follow_majority(&mut self, now: Instant) -> Option<Naming> {
        let Majority {
            named,
            since,
            is_unanimous,
        } = self.majority.as_ref()?;
        let is_agreed = *is_unanimous || now.duration_since(*since) >= AGREED_AFTER;
        // An epoch that only a minority has named must not prevent a failover by the majority.
        let last = self.last_by_majority.as_ref();
        let has_risen = last.is_none_or(|last| last.epoch < named.epoch);
        let is_highest = self.primary.as_ref().is_none_or(|before| before.epoch <= named.epoch);
        if !(is_agreed || has_risen || is_highest) {
            return None;
        }
        self.primary = Some(named.clone());
        self.last_by_majority.clone_from(&self.primary);
        Some(Naming {
            primary: named.clone(),
            is_agreed,
            still_named: None,
        })
    }

    /// Rule 2.
    fn follow_highest_epoch(&mut self, reported: Vec<NamedPrimary>) -> Option<Naming> {
        let is_still_named = |last: &NamedPrimary| reported.iter().any(|named| named.is_same_naming(last));
        let still_named = self.last_by_majority.clone().filter(is_still_named);
        // Among several with the highest epoch, `max_by_key` takes the last: an answer of this check, if there is one.
        let all = self.primary.take().into_iter().chain(reported);
        self.primary = all.max_by_key(|named| named.epoch);
        Some(Naming {
            primary: self.primary.clone()?,
            is_agreed: false,
            still_named,
        })
    }
}
