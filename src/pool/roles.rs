//! What is known of the roles of a pool's servers, and the consequences for each server. Reloads keep this knowledge.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::diverged::DivergenceWatch;
use super::facts::{FailedCheck, Numbering, Role, ServerFacts, Stream};
use super::health::CheckOutcome;
use super::lag::LagWatch;
use super::primary::{Claim, Observation, PrimaryVerdict, PrimaryWatch};
use super::{KnownPrimary, Member, RoleRequirement, Server};
use crate::addr::ServerAddr;

/// The known roles of a pool's servers.
#[derive(Debug)]
pub struct PoolRoles {
    // A blocking mutex: held for a few lines after a check, and by no session.
    state: Mutex<RolesState>,
    /// Notified when the memory of primaries changes.
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct RolesState {
    /// The list that the servers in the other fields are from. Only the pointer is compared; it keeps no server alive.
    list: Weak<Vec<Member>>,
    /// The addresses of these servers, by label.
    servers: HashMap<Arc<str>, ServerAddr>,
    primaries: PrimaryWatch,
    /// The primary that was in force at the latest judgement.
    latest_primary: Option<Arc<str>>,
    lags: LagWatch,
    divergence: DivergenceWatch,
    /// The stream of changes of each server that calls itself primary, by label. A replica with this stream follows it.
    streams: HashMap<Arc<str>, Stream>,
    /// The verdicts on servers that call themselves primary, by label.
    verdicts: HashMap<Arc<str>, PrimaryVerdict>,
}

/// The consequences of one check.
#[derive(Debug, Default)]
pub struct RoleJudgement {
    /// The results to be recorded: that of a check that passed, unless the verdict on its server has to wait for other
    /// checks; and those of servers on which there is a new verdict, except a dead server that is rejected.
    pub outcomes: Vec<(Arc<Server>, CheckOutcome)>,
    /// All servers that call themselves primary, if they have become more than one by this check.
    pub rivals: Option<Vec<Arc<str>>>,
    /// The primary and the kind of number that its timeline is, if the primary or its timeline has changed.
    pub new_primary: Option<(KnownPrimary, Numbering)>,
    /// Whether the primary in force is another one than at the latest judgement, or the list of servers was taken over.
    pub has_new_primary_or_servers: bool,
    /// Whether what is to be remembered of primaries has changed.
    is_memory_changed: bool,
}

impl PoolRoles {
    /// Begins with the primary that is remembered from before.
    #[must_use]
    pub(super) fn new(known: Option<KnownPrimary>, changed: Arc<Notify>) -> Self {
        let state = Mutex::new(RolesState {
            primaries: PrimaryWatch::new(known),
            ..RolesState::default()
        });
        Self { state, changed }
    }

    /// The primary to be remembered.
    #[must_use]
    pub fn known_primary(&self) -> Option<KnownPrimary> {
        self.state.lock().primaries.memory()
    }

    /// Takes over the primary that another pool remembers, if none is remembered yet. Returns whether it does.
    pub fn inherit(&self, known: KnownPrimary) -> bool {
        let mut state = self.state.lock();
        let inherits = state.primaries.inherit(known);
        if inherits {
            state.list = Weak::new(); // so the next check moves the memory to this pool's labels
            self.changed.notify_one();
        }
        inherits
    }

    /// The servers that call themselves primary at the same time, as far as is known.
    #[must_use]
    pub fn claimants(&self) -> Vec<Arc<str>> {
        self.state.lock().primaries.claimants().map(Arc::clone).collect()
    }

    /// The server that is the primary; `None`: there is none, or none can be trusted.
    #[must_use]
    pub fn primary_in_force(&self) -> Option<Arc<str>> {
        self.state.lock().primaries.in_force().map(Arc::from)
    }

    /// Makes the next check take over the list of servers again: one of them may have been disabled or enabled.
    pub(super) fn forget_list(&self) {
        self.state.lock().list = Weak::new();
    }

    /// Judges a server by what a check that passed has found out, and sets its lag. `members`: all servers of the pool.
    pub fn judge(
        &self,
        server: &Arc<Server>,
        facts: &ServerFacts,
        members: &Arc<Vec<Member>>,
        required: RoleRequirement,
        now: Instant,
    ) -> RoleJudgement {
        let (role, is_multi_primary) = (facts.role, facts.is_multi_primary);
        let label = &server.spec().label;
        let mut state = self.state.lock();
        let mut judgement = state.observe(label, observation(facts), members, required);
        if state.primaries.in_force() == Some(label) {
            state.divergence.record_primary(label, facts);
            if let Some(max_lag) = required.max_lag {
                state.lags.record_primary(label, facts, max_lag, now);
            }
        }
        let is_primary = role == Some(Role::Primary);
        if is_primary {
            state.lags.forget_replica(label);
        }
        state.note_stream(label, facts);
        let is_listed = state.servers.contains_key(label);
        let max_lag = required.max_lag.filter(|_| !is_primary && is_listed);
        let lag = max_lag.and_then(|max_lag| state.lags.replica_lag(label, facts, max_lag, now));
        let why_diverged = state.note_divergence(label, facts, required);
        let has_lag = !is_primary && why_diverged.is_none(); // the lag on another history means nothing
        let reported = facts.lag.filter(|lag| *lag < Duration::MAX); // `MAX`: the server cannot say
        server.set_lag(lag.or(reported).filter(|_| has_lag));
        // The result for a server that calls itself the primary is its verdict, which `observe` adds if there is one.
        let needs_verdict = is_primary && !is_multi_primary && required.uses_one_primary();
        if !needs_verdict {
            let outcome = match (required.judge(role, lag), why_diverged) {
                (CheckOutcome::Pass | CheckOutcome::Behind(_), Some(why)) => CheckOutcome::Unfit((&*why).into()),
                (outcome, _) => outcome,
            };
            judgement.outcomes.push((Arc::clone(server), outcome));
        }
        let own = judgement.outcomes.iter_mut().filter(|(of, _)| Arc::ptr_eq(of, server));
        own.for_each(|(_, outcome)| required.add_denied_function(outcome, facts, lag));
        self.notify(&judgement);
        judgement
    }

    /// Judges what a check that did not pass means for the roles. The result of the check is recorded already. `fall`:
    /// how many failed checks take a server out.
    pub fn note_failure(
        &self,
        server: &Server,
        failed: &FailedCheck,
        members: &Arc<Vec<Member>>,
        required: RoleRequirement,
        fall: u32,
    ) -> RoleJudgement {
        server.set_lag(None);
        let observation = match failed.outcome {
            CheckOutcome::Refused { accepts_sessions, .. } | CheckOutcome::Prevented { accepts_sessions, .. } => {
                Observation::Refused { accepts_sessions }
            }
            CheckOutcome::Unfit(_) => observation(&failed.facts), // it has answered
            _ => Observation::Failed {
                is_down: server.has_failed(fall),
            },
        };
        let label = &server.spec().label;
        let judgement = self.state.lock().observe(label, observation, members, required);
        self.notify(&judgement);
        judgement
    }

    /// Makes this server the primary, as an operator has decided. `None`: the pool selects no primary, or the server
    /// does not call itself primary, is down, disabled or a node of Galera, or is not in the pool.
    pub fn trust(&self, server: &str, members: &Arc<Vec<Member>>, required: RoleRequirement) -> Option<RoleJudgement> {
        let mut state = self.state.lock();
        let before = state.primaries.known().cloned();
        let is_other_list = state.set_list(members, required);
        if !state.primaries.trust(server) {
            state.list = Weak::new(); // so the next check takes over the list again, and reports it as new
            return None;
        }
        let mut judgement = state.reconsider(before.as_ref(), None, members, required);
        judgement.has_new_primary_or_servers |= is_other_list;
        self.notify(&judgement);
        Some(judgement)
    }

    fn notify(&self, judgement: &RoleJudgement) {
        if judgement.is_memory_changed {
            self.changed.notify_one();
        }
    }
}

/// The observation of a server that has answered. A server of a multi-primary cluster counts as a replica. A server
/// that does not tell its role counts as one that has refused the check.
fn observation(facts: &ServerFacts) -> Observation {
    let ServerFacts {
        role,
        is_multi_primary,
        system_identifier,
        timeline,
        numbering,
        ..
    } = *facts;
    match role {
        _ if is_multi_primary => Observation::Replica { system_identifier },
        Some(Role::Primary) => Observation::Primary {
            system_identifier,
            claim: Claim { timeline, numbering },
        },
        Some(Role::Replica) => Observation::Replica { system_identifier },
        None => Observation::Refused {
            accepts_sessions: false,
        },
    }
}

impl RolesState {
    /// Takes over the servers of the pool from this list, if it is not the present one. Returns whether it did. A
    /// new requirement comes with a new list, so only the lists are compared.
    fn set_list(&mut self, members: &Arc<Vec<Member>>, required: RoleRequirement) -> bool {
        if self.list.as_ptr() == Arc::as_ptr(members) {
            return false;
        }
        self.list = Arc::downgrade(members);
        let server = |member: &Member| (Arc::clone(&member.spec().label), member.spec().address);
        let before = std::mem::replace(&mut self.servers, members.iter().map(server).collect());
        let servers = &self.servers;
        let is_same = |label: &str| servers.contains_key(label) && servers.get(label) == before.get(label);
        self.lags.retain(is_same);
        self.divergence.retain(is_same);
        self.streams.retain(|label, _| is_same(label));
        if required.has_primary() {
            self.verdicts.retain(|label, _| is_same(label));
            let with_address = |(label, address): (&Arc<str>, &ServerAddr)| (Arc::clone(label), address.to_string());
            self.primaries.follow_names(&servers.iter().map(with_address).collect());
            let with_disabled = members
                .iter()
                .map(|member| (&member.spec().label, member.is_disabled()));
            self.primaries.set_servers(with_disabled);
        } else {
            // The pool may have had a primary before a reload; now it has none.
            self.verdicts.clear();
            self.primaries.set_servers(std::iter::empty());
        }
        true
    }

    /// Notes the position of a replica. Returns why it does not follow the primary, if that is certain.
    fn note_divergence(&mut self, label: &Arc<str>, facts: &ServerFacts, required: RoleRequirement) -> Option<String> {
        if !required.has_primary() || facts.role != Some(Role::Replica) || !self.servers.contains_key(label) {
            return None;
        }
        let known = self.primaries.known()?;
        let primary = &known.server;
        let diverged = self.divergence.observe_replica(label, facts, primary);
        if let Some(rival) = self.followed_rival(facts, primary) {
            return Some(format!("not a replica of {primary}: it follows {rival}"));
        }
        let is_known_in_force = self.primaries.in_force().is_some();
        match (known.system_identifier, facts.system_identifier) {
            (Some(expected), Some(own)) if is_known_in_force && expected != own => Some(format!(
                "a replica of another database: its system identifier is {own}, and that of {primary} is {expected}"
            )),
            _ => diverged,
        }
    }

    /// Remembers the stream of changes that a server sends while it calls itself primary.
    fn note_stream(&mut self, label: &Arc<str>, facts: &ServerFacts) {
        match (facts.role, facts.stream) {
            (Some(Role::Primary), Some(stream)) if self.servers.contains_key(label) => {
                self.streams.insert(Arc::clone(label), stream);
            }
            (Some(Role::Replica), _) => drop(self.streams.remove(label)),
            _ => {}
        }
    }

    /// The server that a replica follows, if that server cannot be the primary.
    fn followed_rival(&self, facts: &ServerFacts, primary: &str) -> Option<&Arc<str>> {
        let stream = facts.stream?;
        let is_followed = |label: &str| self.streams.get(label) == Some(&stream);
        let mut rejected = self.primaries.rejected();
        rejected.find(|rival| is_followed(rival) && !is_followed(primary))
    }

    /// Takes note of what a check has observed of a server, and judges the servers that call themselves primary.
    fn observe(
        &mut self,
        label: &Arc<str>,
        observation: Observation,
        members: &Arc<Vec<Member>>,
        required: RoleRequirement,
    ) -> RoleJudgement {
        let is_other_list = self.set_list(members, required);
        if !required.has_primary() || !self.servers.contains_key(label) {
            return RoleJudgement {
                has_new_primary_or_servers: is_other_list,
                ..RoleJudgement::default()
            };
        }
        let before = self.primaries.known().cloned();
        let had_rivals = self.primaries.claimants().count() > 1;
        self.primaries.observe(label, observation);
        let mut claimant = None;
        match observation {
            Observation::Primary { .. } => {
                self.verdicts.insert(Arc::clone(label), PrimaryVerdict::Undecided);
                claimant = Some(label);
            }
            Observation::Replica { .. } => drop(self.verdicts.remove(label)),
            Observation::Refused { .. } | Observation::Failed { .. } => {} // its last answer still counts
        }
        let mut judgement = self.reconsider(before.as_ref(), claimant, members, required);
        let claimants: Vec<_> = self.primaries.claimants().map(Arc::clone).collect();
        judgement.rivals = (claimants.len() > 1 && !had_rivals).then_some(claimants);
        judgement.has_new_primary_or_servers |= is_other_list;
        judgement
    }

    /// Compares the remembered primary with `before`, and the verdicts on all servers that call themselves primary with
    /// the earlier ones. `checked`: the server that has just been checked, if it calls itself primary. The verdict on
    /// this server counts as new in any case.
    fn reconsider(
        &mut self,
        before: Option<&KnownPrimary>,
        checked: Option<&Arc<str>>,
        members: &[Member],
        required: RoleRequirement,
    ) -> RoleJudgement {
        let is_rest_of_memory_changed = self.primaries.take_rest_of_memory_changed();
        let known = self.primaries.known();
        let is_same = |a: &KnownPrimary, b: &KnownPrimary| a.server == b.server && a.timeline == b.timeline;
        let is_new = |known: &&KnownPrimary| !before.is_some_and(|before| is_same(before, known));
        let mut judgement = RoleJudgement {
            new_primary: known.filter(is_new).map(|known| self.primaries.numbered(known)),
            is_memory_changed: known != before || is_rest_of_memory_changed,
            has_new_primary_or_servers: self.primaries.in_force() != self.latest_primary.as_deref(),
            ..RoleJudgement::default()
        };
        if judgement.has_new_primary_or_servers {
            self.latest_primary = self.primaries.in_force().map(Arc::from);
        }
        if !required.uses_one_primary() {
            return judgement;
        }
        for (label, verdict) in &mut self.verdicts {
            let latest = self.primaries.verdict(label);
            if Some(label) != checked && latest == *verdict {
                continue;
            }
            *verdict = latest;
            let outcome = match verdict {
                PrimaryVerdict::Undecided => continue,
                PrimaryVerdict::Primary => required.judge(Some(Role::Primary), None),
                PrimaryVerdict::Rejected(why) => CheckOutcome::Unfit((&**why).into()),
            };
            let same_label = members.iter().filter(|member| member.spec().label == *label);
            let is_rejected_unchecked = Some(label) != checked && matches!(verdict, PrimaryVerdict::Rejected(_));
            for member in same_label {
                // A dead server has not answered: `reject_if_dead` rejects it, but not as the result of a check.
                if !(is_rejected_unchecked && member.reject_if_dead()) {
                    judgement.outcomes.push((Arc::clone(member), outcome.clone()));
                }
            }
        }
        // The primary first: clients that wait in the queue are refused as soon as the pool has no usable server.
        let outcomes = &mut judgement.outcomes;
        outcomes.sort_by_key(|(_, outcome)| *outcome != CheckOutcome::Pass);
        judgement
    }
}

#[cfg(test)]
mod tests;
