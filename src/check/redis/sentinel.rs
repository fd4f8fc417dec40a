//! Asks the Sentinels of a check which server is the primary.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::conversation::{Credentials, Pipeline, RedisLogin};
use super::naming::{NamedPrimary, Naming, SentinelAnswers};
use super::resp::RespValue;
use crate::addr::ServerAddr;
use crate::check::stream::open_stream;
use crate::check::{CheckFailure, CheckTarget};
use crate::dial::ConnectOptions;

/// The time that the Sentinels get to answer, in tenths of the timeout of a check. The server's own answer needs time
/// as well.
const SENTINEL_TENTHS: u32 = 4;

/// The time from the beginning of a check until it no longer waits for Sentinels, in tenths of its timeout. The rest is
/// for the result of the check.
const DEADLINE_TENTHS: u32 = 9;

/// The reason of a check's failure when no Sentinel has ever named a primary.
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

/// The Sentinels of a check.
pub(super) struct Sentinels {
    group: Arc<SentinelGroup>,
    /// How a connection to them is opened.
    connect: ConnectOptions,
    /// The timeout of the whole check.
    timeout: Duration,
    /// A blocking mutex: never held across an await.
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

    /// When to stop waiting for answers. Sentinels that hang must leave some of the check's time, so that the primary
    /// that they named before can still be the result. `began`: when the check began.
    fn deadline(&self, began: Instant) -> Instant {
        let share_ends = Instant::now() + self.timeout * SENTINEL_TENTHS / 10;
        share_ends.min(began + self.timeout * DEADLINE_TENTHS / 10)
    }

    /// Asks all Sentinels at once. Returns what [`SentinelAnswers::update`] returns.
    ///
    /// # Errors
    /// No Sentinel has ever named a primary. The failure is a [`CheckFailure::Shortage`] or [`CheckFailure::Local`] if
    /// this host prevented a question, else a [`CheckFailure::Unfit`] with the latest reason.
    pub(super) async fn ask(&self, tls: Option<&Arc<ClientConfig>>, began: Instant) -> Result<Naming, CheckFailure> {
        let deadline = self.deadline(began);
        let mut tasks = JoinSet::new();
        for address in self.group.addresses.iter().copied() {
            let target = CheckTarget {
                address: ServerAddr::new(address),
                host: None,
                connect: self.connect.clone(),
                session_address: ServerAddr::new(address),
                pool_and_server: None,
                timeout: self.timeout,
                tls: None,
            };
            let (group, tls) = (Arc::clone(&self.group), tls.cloned());
            tasks.spawn(async move {
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
        let (mut answers, mut kept_failure) = (Vec::new(), CheckFailure::unfit(UNNAMED));
        while let Some(answer) = tasks.join_next().await {
            match answer {
                Ok(Ok(named)) => answers.push(named),
                Ok(Err(_)) | Err(_) if kept_failure.is_of_this_host() => {}
                Ok(Err(failure)) => kept_failure = failure,
                Err(lost) => kept_failure = CheckFailure::unfit(format!("{UNNAMED}: {lost}")),
            }
        }
        let mut known = self.answers.lock();
        let naming = known.update(answers, self.group.addresses.len(), Instant::now());
        naming.ok_or(kept_failure)
    }
}

async fn ask_one(
    target: &CheckTarget,
    group: &SentinelGroup,
    tls: Option<Arc<ClientConfig>>,
) -> Result<NamedPrimary, CheckFailure> {
    let credentials = Credentials::read(group.login.as_ref(), "sentinel_password_file").await?;
    let mut pipeline = Pipeline::new(credentials.as_ref());
    let name = group.master.as_bytes();
    pipeline.add(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name]);
    pipeline.add(&[b"SENTINEL", b"MASTER", name]);
    let replies = pipeline.send(open_stream(target, tls).await?).await?;
    let named = match &replies[1] {
        RespValue::Error(error) => Err(error.clone()),
        description => read_named(replies[0].elements(), description.elements())
            .ok_or_else(|| "not a Sentinel: unexpected reply".to_owned()),
    };
    named.map_err(CheckFailure::unfit)
}

/// Reads the replies to `SENTINEL GET-MASTER-ADDR-BY-NAME` (host and port) and to `SENTINEL MASTER` (names and values
/// alternately). During a failover, the second reply still describes the old primary, but has the new epoch; its run ID
/// is then not used.
fn read_named(address: &[RespValue], description: &[RespValue]) -> Option<NamedPrimary> {
    let value = |name| {
        let mut pairs = description.chunks_exact(2);
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
