//! Servers from DNS records: SRV records with the addresses of their targets, or the addresses of one host.
//!
//! Each question is asked again when the TTL of its answer is over, or after a back-off if there was no answer.
//! Questions that are due are asked together, in a round.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::ProtoError;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::dns_lookup::{Found, NO_ANSWER, ask_addresses, ask_srv, open};
use super::dns_records::{HostAddresses, HostProblems, SrvRecord, servers, warning};
use super::source::{FollowFuture, Reports, ServerList, ServerSource};
use crate::addr::IpFamily;
use crate::back_off::BackOff;
use crate::error::chain;
use crate::plan::{DnsQuery, DnsSourcePlan};
use crate::pool::MemberConfig;
use crate::text::Reason;

/// The shortest and the longest wait before records are asked for again, whatever their TTL.
const TTL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// How long a round waits for the SRV records, and after that for all addresses together. A question that has no answer
/// by then has failed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How many questions are asked at once; each has a socket, or a few if the answer is late.
const ASKED_MAX: usize = 16;

/// The types of addresses: IPv4, IPv6.
const TYPES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// A host name, and the type of its addresses.
type AddressQuestion = (Box<str>, RecordType);

/// A source that gets the servers of a pool from DNS.
pub(super) struct DnsSource {
    plan: DnsSourcePlan,
    defaults: MemberConfig,
    /// The SRV records; for a host name, one made-up record with it as the target.
    srv: DnsAnswer<SrvRecord>,
    addresses: HashMap<AddressQuestion, DnsAnswer<IpAddr>>,
    /// No round begins before this time. Without this bound, many questions with short TTLs would leave no pause
    /// between rounds, because one of the questions would always be due.
    next_round: Instant,
    /// The problems of hosts in the last round that found servers.
    problems: HostProblems,
}

impl DnsSource {
    pub(super) fn new(plan: DnsSourcePlan, defaults: MemberConfig) -> Self {
        let mut srv = DnsAnswer::unknown();
        if let DnsQuery::Host { host, port } = &plan.query {
            srv.records.push(SrvRecord {
                priority: 0,
                target: host.clone(),
                port: *port,
                weight: 1,
            });
        }
        Self {
            plan,
            defaults,
            srv,
            addresses: HashMap::new(),
            next_round: Instant::now(),
            problems: HostProblems::new(),
        }
    }

    /// Asks whenever a question is due, until a round fails. The next call reads the configuration of the system again.
    async fn run(&mut self, reports: &Reports) -> Reason {
        let name_server = self.plan.resolver;
        let resolver = match spawn_blocking(move || open(name_server)).await {
            Ok(Ok(resolver)) => resolver,
            Ok(Err(error)) => {
                let origin = name_server.map_or("/etc/resolv.conf".to_owned(), |address| address.to_string());
                return Reason::from(format!("{origin}: {}", chain(&error)));
            }
            Err(lost) => return Reason::new(&lost.to_string()),
        };
        loop {
            // Before the first round for a host name there is no question yet.
            sleep_until(self.due().unwrap_or(self.next_round).max(self.next_round)).await;
            self.next_round = Instant::now() + *TTL.start();
            match self.ask_due(&resolver).await {
                Ok(list) => reports.report(Ok(list)),
                Err(error) => return error,
            }
        }
    }

    /// When the next question is due. As long as the question for SRV records fails, no addresses are asked for.
    fn due(&self) -> Option<Instant> {
        let srv = self.srv_name().map(|_| self.srv.due);
        if self.srv.has_failed {
            return srv;
        }
        let addresses = self.addresses.values().map(|answer| answer.due);
        addresses.chain(srv).min()
    }

    /// Asks the questions that are due. Returns the servers of all answers, those of earlier rounds included.
    ///
    /// # Errors
    /// The question for SRV records has failed, or all those for addresses have, or there are too many servers.
    async fn ask_due(&mut self, resolver: &TokioResolver) -> Result<ServerList, Reason> {
        let srv_name = self.srv_name().filter(|_| self.srv.is_due());
        if let Some(name) = srv_name.cloned() {
            let answered = timeout(ANSWER_TIMEOUT, ask_srv(resolver, name)).await;
            self.srv.record(answered.unwrap_or_else(|_| Err(NO_ANSWER.into())));
        }
        match &self.srv.problem {
            Some(error) if self.srv.has_failed => return Err(error.clone()),
            Some(absent) => {
                // The answer is that there are no SRV records.
                self.addresses.clear();
                return Ok(ServerList {
                    servers: Vec::new(),
                    warning: Some(absent.clone()),
                });
            }
            None => {}
        }
        self.adopt_targets();
        self.ask_due_addresses(resolver).await;
        if let Some(error) = self.failure_of_all() {
            return Err(error);
        }
        let (servers, problems) = servers(&self.srv.records, &self.hosts(), self.defaults)?;
        let warning = warning(&problems);
        if !servers.is_empty() {
            self.log_problems(problems); // if the list is empty, its warning alone reports the problems
        }
        Ok(ServerList { servers, warning })
    }

    fn srv_name(&self) -> Option<&Name> {
        match &self.plan.query {
            DnsQuery::Srv(name) => Some(name),
            DnsQuery::Host { .. } => None,
        }
    }

    /// Sets the questions for addresses: those for the present targets, and no others.
    fn adopt_targets(&mut self) {
        let types = match self.plan.family {
            IpFamily::Both => &TYPES[..],
            IpFamily::V4 => &TYPES[..1],
            IpFamily::V6 => &TYPES[1..],
        };
        let targets = self.srv.records.iter().map(|record| &record.target);
        let wanted: HashSet<AddressQuestion> = targets
            .filter(|target| !target.is_empty())
            .flat_map(|target| types.iter().map(|kind| (target.clone(), *kind)))
            .collect();
        self.addresses.retain(|question, _| wanted.contains(question));
        for question in wanted {
            self.addresses.entry(question).or_insert_with(DnsAnswer::unknown);
        }
    }

    /// The questions for addresses that are due, those that have waited longest first.
    fn due_addresses(&self, now: Instant) -> Vec<AddressQuestion> {
        let due = self.addresses.iter().filter(|(_, answer)| answer.due <= now);
        let mut due: Vec<_> = due.map(|(question, answer)| (answer.due, question)).collect();
        due.sort_unstable_by_key(|(since, _)| *since);
        due.into_iter().map(|(_, question)| question.clone()).collect()
    }

    /// Asks for the addresses that are due. All questions of the round share one [`ANSWER_TIMEOUT`]: those that are not
    /// answered within it, or not even asked, have failed.
    async fn ask_due_addresses(&mut self, resolver: &TokioResolver) {
        let begin = Instant::now();
        let mut due = self.due_addresses(begin).into_iter();
        let mut asked = JoinSet::new();
        loop {
            let room = ASKED_MAX - asked.len();
            for question in due.by_ref().take(room) {
                let (host, kind) = &question;
                let (resolver, name, kind) = (resolver.clone(), self.name_of(host), *kind);
                asked.spawn(async move {
                    let answer = match name {
                        Ok(name) => ask_addresses(&resolver, name, kind).await,
                        Err(error) => Err(error),
                    };
                    (question, answer)
                });
            }
            match timeout_at(begin + ANSWER_TIMEOUT, asked.join_next()).await {
                Ok(Some(Ok((question, answered)))) => {
                    if let Some(answer) = self.addresses.get_mut(&question) {
                        answer.record(answered);
                    }
                }
                Ok(Some(Err(_panic))) => {} // the question stays due, so it counts as not answered
                Ok(None) | Err(_) => break,
            }
        }
        let silent = self.addresses.values_mut().filter(|answer| answer.due <= begin);
        silent.for_each(|answer| answer.record(Err(NO_ANSWER.into())));
    }

    /// The name to ask for. Targets of SRV records are absolute names; a configured host may be relative to the domains
    /// that resolv.conf(5) lists.
    fn name_of(&self, host: &str) -> Result<Name, Reason> {
        let parsed = match self.plan.query {
            DnsQuery::Srv(_) => format!("{host}.").parse(),
            DnsQuery::Host { .. } => host.parse(),
        };
        parsed.map_err(|error: ProtoError| Reason::from(chain(&error)))
    }

    /// Why the questions for addresses have failed, if all of them have; `None`: at least one was answered, or there
    /// are no questions.
    fn failure_of_all(&self) -> Option<Reason> {
        let have_all_failed = self.addresses.values().all(|answer| answer.has_failed);
        let first = self.addresses.values().next()?;
        first.problem.clone().filter(|_| have_all_failed)
    }

    /// The addresses and problems of the present targets.
    fn hosts(&self) -> HashMap<Box<str>, HostAddresses> {
        let targets = self.srv.records.iter().map(|record| &record.target);
        let named = targets.filter(|target| !target.is_empty());
        named.map(|target| (target.clone(), self.host(target))).collect()
    }

    fn host(&self, name: &str) -> HostAddresses {
        let answers = || {
            TYPES
                .iter()
                .filter_map(|kind| self.addresses.get(&(name.into(), *kind)))
        };
        let addresses: Vec<IpAddr> = answers().flat_map(|answer| &answer.records).copied().collect();
        // At most one problem is shown: that a question failed, that there is no address, or that not all are used.
        let failed = answers().find(|answer| answer.has_failed);
        let absent = answers().next().filter(|_| addresses.is_empty());
        let cut = answers().find(|answer| !answer.records.is_empty() && answer.problem.is_some());
        HostAddresses {
            problem: failed.or(absent).or(cut).and_then(|answer| answer.problem.clone()),
            addresses,
        }
    }

    /// If some hosts have a problem and had none before, logs one of them. Also logs when no host has problems any
    /// more.
    fn log_problems(&mut self, problems: HostProblems) {
        let source = &self.plan;
        let mut new = problems.iter().filter(|(host, _)| !self.problems.contains_key(*host));
        if let Some((host, error)) = new.next() {
            let count = problems.len();
            tracing::warn!(%source, %host, %error, count, "problems with hosts of servers");
        } else if problems.is_empty() && !self.problems.is_empty() {
            tracing::info!(%source, "the hosts of servers have no problems any more");
        }
        self.problems = problems;
    }
}

impl ServerSource for DnsSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a> {
        Box::pin(self.run(reports))
    }
}

/// The state of a question: its latest answer, and when it is asked again.
struct DnsAnswer<T> {
    /// The records of its latest answer.
    records: Vec<T>,
    /// Why there are no records, or (of addresses only) not all, or why they may be out of date.
    problem: Option<Reason>,
    /// Whether it was not answered the last time.
    has_failed: bool,
    back_off: BackOff,
    /// When it is asked next.
    due: Instant,
}

impl<T> DnsAnswer<T> {
    /// For a question that was never asked, and is to be asked now.
    fn unknown() -> Self {
        Self {
            records: Vec::new(),
            problem: None,
            has_failed: false,
            back_off: BackOff::default(),
            due: Instant::now(),
        }
    }

    /// Records the result of a question. After a failure, the records of the answer before it stay.
    fn record(&mut self, answered: Result<Found<T>, Reason>) {
        self.has_failed = answered.is_err();
        let gap = match answered {
            Ok(found) => {
                self.records = found.records;
                self.problem = found.remark;
                self.back_off.reset();
                found.ttl.clamp(*TTL.start(), *TTL.end())
            }
            Err(error) => {
                self.problem = Some(error);
                self.back_off.next_pause()
            }
        };
        self.due = Instant::now() + gap;
    }

    fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(records: &[u8], ttl: u64) -> Result<Found<u8>, Reason> {
        Ok(Found {
            records: records.to_vec(),
            remark: records.is_empty().then(|| "none".into()),
            ttl: Duration::from_secs(ttl),
        })
    }

    /// The wait until the next question after this result.
    fn gap(answer: &mut DnsAnswer<u8>, answered: Result<Found<u8>, Reason>) -> Duration {
        answer.record(answered);
        answer.due - Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn records_are_valid_for_their_ttl_within_bounds() {
        let mut answer = DnsAnswer::unknown();
        for (ttl, seconds) in [(0, 1), (1, 1), (77, 77), (86_400, 3600)] {
            assert_eq!(gap(&mut answer, found(&[1], ttl)), Duration::from_secs(seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_keep_the_records_and_back_off() {
        let mut answer = DnsAnswer::unknown();
        answer.record(found(&[1, 2], 5));
        for seconds in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
            let ratio = gap(&mut answer, Err(NO_ANSWER.into())).as_secs_f64() / seconds;
            assert!((0.75..=1.25).contains(&ratio), "{ratio} of {seconds} s");
            assert!(answer.has_failed && answer.records == [1, 2]);
        }
        answer.record(found(&[], 5));
        assert!(!answer.has_failed && answer.records.is_empty() && answer.problem.is_some());
        answer.record(found(&[3], 5));
        assert!(answer.records == [3] && answer.problem.is_none());
    }
}
