//! Sentinels: which server they name as the primary.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::conversation::{Credentials, Pipeline, RedisLogin};
use super::resp::RespValue;
use crate::addr::ServerAddr;
use crate::check::stream::open_stream;
use crate::check::{CheckFailure, CheckTarget};
use crate::dial::ConnectOptions;

/// How long most Sentinels must have named the same primary in the same epoch before that counts even if a higher epoch
/// was seen before. They tell each other of a failover within seconds.
const AGREED_AFTER: Duration = Duration::from_secs(30);

/// The part of the time of a check that the Sentinels have to answer, in tenths: the server's own answer needs time as
/// well.
const SENTINEL_TENTHS: u32 = 4;

/// The part of the time of a check after which the Sentinels are waited for no longer, in tenths: the rest is for its
/// result.
const LAST_TENTHS: u32 = 9;

/// Why there is no answer of the Sentinels.
const UNNAMED: &str = "no Sentinel has said which server is the primary";

/// Sentinels that watch the same primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelGroup {
    /// Their addresses.
    pub addresses: Vec<SocketAddr>,
    /// Their name for the primary and its replicas.
    pub master: Box<str>,
    /// How to log in; `None`: without a password.
    pub login: Option<RedisLogin>,
}

impl SentinelGroup {
    /// The keys that are set, each with its value as text.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let Self {
            addresses,
            master,
            login,
        } = self;
        let mut settings = vec![
            ("health.sentinels", format!("{addresses:?}")),
            ("health.master", format!("{master:?}")),
        ];
        if let Some(RedisLogin { user, password_file }) = login {
            settings.extend(user.as_ref().map(|user| ("health.sentinel_user", format!("{user:?}"))));
            settings.push(("health.sentinel_password_file", format!("{password_file:?}")));
        }
        settings
    }
}

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

    /// Whether it is the server that is checked. Sentinel may know it under another address: then its run id tells.
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
    /// Whether they agree on it, so that it counts even if a higher epoch is remembered.
    pub(super) is_agreed: bool,
    /// The primary that most of them named before some of them failed, if one of them still names it.
    pub(super) repeated: Option<NamedPrimary>,
}

impl Naming {
    /// The epoch in which this server is named the primary, and whether they agree on that; `None`: it is not the
    /// primary.
    pub(super) fn epoch_of(&self, target: &CheckTarget, run_id: &str) -> Option<(u32, bool)> {
        let repeated = self.repeated.iter().map(|named| (named, false));
        let mut all = std::iter::once((&self.primary, self.is_agreed)).chain(repeated);
        let (named, is_agreed) = all.find(|(named, _)| named.is_target(target, run_id))?;
        Some((named.epoch, is_agreed))
    }
}

/// What the Sentinels have said.
#[derive(Debug, Default)]
pub(super) struct SentinelAnswers {
    /// The primary that counts.
    last: Option<NamedPrimary>,
    /// The primary that more than half of them named when a majority last counted.
    majority: Option<NamedPrimary>,
    /// The primary that more than half of them named at the latest check, and since when they have named it.
    by_majority: Option<(NamedPrimary, Instant)>,
}

impl SentinelAnswers {
    /// What the Sentinels say now; `None`: none has ever answered. `reported`: the answers of this check;
    /// `sentinels`: how many Sentinels were asked.
    ///
    /// The primary that more than half of them name counts, even if another Sentinel knows a higher epoch: it may be of
    /// another group. If a higher epoch counted before, that holds only if the majority's own epoch has risen, if all
    /// Sentinels agree, or if the majority has named the server for [`AGREED_AFTER`]: they may have been set up anew.
    /// Otherwise the primary in the highest epoch counts, including the one that counted before: a Sentinel that was
    /// cut off from the others must not bring back an old primary. In that case the primary that most named last stays
    /// valid, too, as long as one of them still names it: a Sentinel that is wrong must not take out the primary while
    /// another one is down. If the higher epoch is the right one, the server that is named in it calls itself primary
    /// as well, and the pool takes that one.
    pub(super) fn take(&mut self, reported: Vec<NamedPrimary>, sentinels: usize, now: Instant) -> Option<Naming> {
        let votes = |named: &NamedPrimary| reported.iter().filter(|other| other.is_same_server(named)).count();
        let by_majority = reported.iter().filter(|named| 2 * votes(named) > sentinels);
        // Of several in one epoch, one that knows the run id: it is recognized under each of its addresses.
        let by_majority = by_majority.max_by_key(|named| (named.epoch, !named.run_id.is_empty()));
        let is_unanimous = by_majority.is_some_and(|named| votes(named) == sentinels);
        self.by_majority = by_majority.map(|named| {
            let before = self
                .by_majority
                .take()
                .filter(|(before, _)| before.is_same_naming(named));
            (named.clone(), before.map_or(now, |(_, since)| since))
        });
        if let Some((named, since)) = &self.by_majority {
            let is_agreed = is_unanimous || now.duration_since(*since) >= AGREED_AFTER;
            // An epoch that only a minority has named must not prevent a failover by the majority.
            let is_next = self.majority.as_ref().is_none_or(|before| before.epoch < named.epoch);
            let is_in_order = is_next || self.last.as_ref().is_none_or(|last| last.epoch <= named.epoch);
            if is_agreed || is_in_order {
                self.last = Some(named.clone());
                self.majority.clone_from(&self.last);
                return Some(Naming {
                    primary: named.clone(),
                    is_agreed,
                    repeated: None,
                });
            }
        }
        let repeated = self
            .majority
            .clone()
            .filter(|majority| reported.iter().any(|named| named.is_same_naming(majority)));
        // Among several with the highest epoch, `max_by_key` takes the last: an answer of now, if there is one.
        let all = self.last.take().into_iter().chain(reported);
        self.last = all.max_by_key(|named| named.epoch);
        self.last.clone().map(|primary| Naming {
            primary,
            is_agreed: false,
            repeated,
        })
    }
}

/// The Sentinels of a check.
pub(super) struct Sentinels {
    group: Arc<SentinelGroup>,
    /// How a connection to them is opened.
    connect: ConnectOptions,
    /// The time of the whole check.
    timeout: Duration,
    /// A std mutex: locked for a line.
    answers: Mutex<SentinelAnswers>,
}

impl Sentinels {
    pub(super) fn new(group: SentinelGroup, target: &CheckTarget) -> Self {
        Self {
            group: Arc::new(group),
            connect: ConnectOptions {
                proxy_protocol: None,
                source: None,
                ..target.connect
            },
            timeout: target.timeout,
            answers: Mutex::default(),
        }
    }

    /// When to stop waiting. Sentinels that hang must not use up the check's time: the last known answer still has to
    /// count in it. `began`: when the check began.
    fn deadline(&self, began: Instant) -> Instant {
        let from_sentinels = Instant::now() + self.timeout * SENTINEL_TENTHS / 10;
        from_sentinels.min(began + self.timeout * LAST_TENTHS / 10)
    }

    /// Asks all Sentinels at once. Returns what [`SentinelAnswers::take`] says.
    ///
    /// # Errors
    /// If none ever has answered: [`CheckFailure::Shortage`] or [`CheckFailure::Local`] if that is the reason for one
    /// of them, else [`CheckFailure::Unfit`] with the reason for the last one.
    pub(super) async fn ask(&self, tls: Option<&Arc<ClientConfig>>, began: Instant) -> Result<Naming, CheckFailure> {
        let deadline = self.deadline(began);
        let mut asked = JoinSet::new();
        for address in self.group.addresses.iter().copied() {
            let target = CheckTarget {
                address: ServerAddr::new(address),
                host: None,
                connect: self.connect.clone(),
                server: ServerAddr::new(address),
                path: None,
                timeout: self.timeout,
                tls: None,
            };
            let (group, tls) = (Arc::clone(&self.group), tls.cloned());
            asked.spawn(async move {
                let asked = timeout_at(deadline, ask_one(&target, &group, tls)).await;
                let answer = asked.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
                answer.map_err(|failure| {
                    if failure.is_of_this_host() {
                        failure
                    } else {
                        CheckFailure::unfit(format!("{UNNAMED}: {address}: {}", failure.reason()))
                    }
                })
            });
        }
        let (mut answers, mut failure) = (Vec::new(), CheckFailure::unfit(UNNAMED));
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok(Ok(named)) => answers.push(named),
                Ok(Err(_)) | Err(_) if failure.is_of_this_host() => {}
                Ok(Err(other)) => failure = other,
                Err(lost) => failure = CheckFailure::unfit(format!("{UNNAMED}: {lost}")),
            }
        }
        let mut known = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let named = known.take(answers, self.group.addresses.len(), Instant::now());
        named.ok_or(failure)
    }
}

async fn ask_one(
    target: &CheckTarget,
    group: &SentinelGroup,
    tls: Option<Arc<ClientConfig>>,
) -> Result<NamedPrimary, CheckFailure> {
    let credentials = Credentials::read(group.login.as_ref(), "sentinel_password_file").await?;
    let mut pipeline = Pipeline::new(credentials.as_ref());
    let master = group.master.as_bytes();
    pipeline.add(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", master]);
    pipeline.add(&[b"SENTINEL", b"MASTER", master]);
    let replies = pipeline.send(open_stream(target, tls).await?).await?;
    let named = match &replies[1] {
        RespValue::Error(error) => Err(error.clone()),
        master => read_named(replies[0].elements(), master.elements())
            .ok_or_else(|| "not a Sentinel: unexpected reply".to_owned()),
    };
    named.map_err(CheckFailure::unfit)
}

/// Reads the replies to `SENTINEL GET-MASTER-ADDR-BY-NAME` (host and port) and to `SENTINEL MASTER` (names and values
/// alternately). During a failover the latter still describes the old primary, though in the new epoch.
fn read_named(address: &[RespValue], master: &[RespValue]) -> Option<NamedPrimary> {
    let value = |name| {
        let mut pairs = master.chunks_exact(2);
        let pair = pairs.find(|pair| pair[0].text() == Some(name))?;
        pair[1].text()
    };
    let (host, port) = (address.first()?.text()?, address.get(1)?.text()?);
    let is_described = value("ip") == Some(host) && value("port") == Some(port);
    let run_id = value("runid").filter(|_| is_described);
    Some(NamedPrimary {
        host: host.to_owned(),
        port: port.parse().ok()?,
        run_id: run_id.unwrap_or_default().to_owned(),
        epoch: value("config-epoch")?.parse().ok()?,
    })
}
