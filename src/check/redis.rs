//! The check `redis`: the server is Redis, or speaks its protocol, and serves commands. The server says which role it
//! has. If Sentinels are configured, they say which server is the primary.

mod resp;
mod conversation;
mod naming;
mod sentinel;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;

use super::kind::ROLE_KEYS;
use super::stream::open_stream;
use super::tcp::connect_error_or;
use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck, Service};
use crate::pool::{Numbering, Role, ServerFacts, Stream};
use crate::tls::unverified_config;
use conversation::{Credentials, Pipeline, Replies};
use naming::{NamedPrimary, Naming};
use resp::RespValue;
use sentinel::Sentinels;

pub use conversation::RedisLogin;
pub use sentinel::SentinelGroup;

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "redis",
    health_keys: &[
        "user",
        "password_file",
        "tls",
        "sentinels",
        "master",
        "sentinel_user",
        "sentinel_password_file",
    ],
    pool_keys: &ROLE_KEYS,
    service: Some(Service {
        name: "Redis",
        accepts_proxy_header: false,
        hint_without_hello: Some("no `sni` or `alpn` matches them, unless they use TLS"),
    }),
};

/// The check `redis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisCheck {
    /// How to log in; `None`: as the default user, without a password.
    pub login: Option<RedisLogin>,
    /// Whether the check speaks TLS with servers and Sentinels. It uses the TLS settings of sessions. If sessions have
    /// none, it verifies no certificates.
    pub tls: bool,
    /// The Sentinels that say which server is the primary; `None`: what a server says of itself is taken.
    pub sentinels: Option<SentinelGroup>,
}

impl Check for RedisCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { login, tls, sentinels } = self;
        let mut settings = Vec::new();
        if let Some(RedisLogin { user, password_file }) = login {
            settings.extend(user.as_ref().map(|user| ("health.user", format!("{user:?}"))));
            settings.push(("health.password_file", format!("{password_file:?}")));
        }
        settings.extend(tls.then(|| ("health.tls", tls.to_string())));
        settings.extend(sentinels.iter().flat_map(SentinelGroup::settings));
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        let own = self.login.iter().map(|login| ("password_file", &*login.password_file));
        let login = self.sentinels.iter().flat_map(|group| &group.login);
        let from_sentinels = login.map(|login| ("sentinel_password_file", &*login.password_file));
        own.chain(from_sentinels).collect()
    }

    fn learns_role(&self) -> bool {
        true
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(RedisProbe::new(self, target))
    }
}

struct RedisProbe {
    check: Arc<RedisCheck>,
    target: CheckTarget,
    sentinels: Option<Sentinels>,
}

impl Probe for RedisProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(self.learn_facts())
    }
}

/// What a server says of itself.
struct Answer {
    pass: CheckPass,
    /// Changes with every start of the server; empty: not known.
    run_id: String,
}

impl RedisProbe {
    fn new(check: Arc<RedisCheck>, target: CheckTarget) -> Self {
        let group = check.sentinels.clone();
        Self {
            sentinels: group.map(|group| Sentinels::new(group, &target)),
            check,
            target,
        }
    }

    /// The TLS configuration for a connection; `None`: the check does not speak TLS.
    fn tls(&self) -> Option<Arc<ClientConfig>> {
        let of_sessions = self.target.tls.as_ref().map(|tls| tls.config());
        self.check.tls.then(|| of_sessions.unwrap_or_else(unverified_config))
    }

    /// Asks the server. If it calls itself primary, and Sentinels are configured, asks them, too.
    ///
    /// # Errors
    /// A password cannot be read; connecting failed; or the server speaks another protocol, refuses the check, is a
    /// Sentinel or a replica without a link to its primary, or calls itself the primary while the Sentinels name
    /// another server, or have never named one.
    async fn learn_facts(&self) -> Result<CheckPass, CheckFailure> {
        let began = Instant::now();
        let answer = self.ask_server().await?;
        match &self.sentinels {
            // The Sentinels are not asked at the same time as the server: if the server hangs for a while, the answer
            // of the Sentinels may be outdated when that of the server comes.
            Some(sentinels) if answer.pass.facts.role == Some(Role::Primary) => {
                let naming = sentinels.ask(self.tls().as_ref(), began).await?;
                self.judge(answer, &naming)
            }
            _ => Ok(answer.pass),
        }
    }

    async fn ask_server(&self) -> Result<Answer, CheckFailure> {
        let credentials = match Credentials::read(self.check.login.as_ref(), "password_file").await {
            Ok(credentials) => credentials,
            Err(prevented) => return Err(connect_error_or(&self.target, prevented).await),
        };
        let mut pipeline = Pipeline::new(credentials.as_ref());
        pipeline.add(&[b"ROLE"]);
        pipeline.add(&[b"INFO", b"replication"]);
        if self.sentinels.is_some() {
            pipeline.add(&[b"INFO", b"server"]);
        }
        let stream = open_stream(&self.target, self.tls()).await?;
        let Replies {
            added: replies,
            refusal,
        } = pipeline.exchange(stream).await?;
        // The role is read before the refusal is returned: a replica that has lost its primary may refuse `PING`, but
        // must still be reported as a replica.
        let role = read_role(&replies[0])?;
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let role_denied = match &replies[0] {
            RespValue::Error(reason) => Some(reason.clone()),
            _ => None,
        };
        let lag = field(replies.get(1), "master_last_io_seconds_ago").and_then(|seconds| seconds.parse().ok());
        Ok(Answer {
            pass: CheckPass {
                facts: ServerFacts {
                    role,
                    numbering: Numbering::None,
                    stream: field(replies.get(1), "master_replid").and_then(read_stream),
                    lag: lag.map(Duration::from_secs),
                    ..ServerFacts::default()
                },
                role_denied,
                ..CheckPass::default()
            },
            run_id: field(replies.get(2), "run_id").unwrap_or_default().to_owned(),
        })
    }

    /// Compares what a server that calls itself primary says with what the Sentinels say.
    fn judge(&self, answer: Answer, naming: &Naming) -> Result<CheckPass, CheckFailure> {
        let Answer { mut pass, run_id } = answer;
        let Some((epoch, is_agreed)) = naming.epoch_of(&self.target, &run_id) else {
            let NamedPrimary { host, port, epoch, .. } = &naming.primary;
            let why = format!("not the primary of the Sentinels: they name {host}:{port}, in epoch {epoch}");
            return Err(no_primary(why));
        };
        pass.facts.timeline = Some(epoch);
        pass.facts.numbering = Numbering::Epoch { is_agreed };
        Ok(pass)
    }
}

/// The role in the reply to `ROLE`; `None`: the reply is an error, for example because the user may not ask for it.
///
/// # Errors
/// [`CheckFailure::Unfit`]: the server is a replica that does not follow its primary, or a Sentinel.
/// [`CheckFailure::Io`]: Redis does not send such a reply.
fn read_role(reply: &RespValue) -> Result<Option<Role>, CheckFailure> {
    let word = |index: usize| reply.elements().get(index).and_then(RespValue::text);
    match (reply, word(0)) {
        (RespValue::Error(_), _) => Ok(None),
        (_, Some("master")) => Ok(Some(Role::Primary)),
        (_, Some("slave")) => match word(3) {
            Some("connected") => Ok(Some(Role::Replica)),
            state => Err(no_primary(format!(
                "the link of the replica to its primary is down: {}",
                state.unwrap_or("unknown")
            ))),
        },
        (_, Some("sentinel")) => Err(no_primary("the server is a Sentinel, it has no data".to_owned())),
        _ => Err(io::Error::other("the answer does not say whether the server is a replica").into()),
    }
}

/// The replication ID of a primary and its replicas: 40 random hexadecimal digits. The first 32 are kept, which fit
/// into a `u128`.
fn read_stream(id: &str) -> Option<Stream> {
    u128::from_str_radix(id.get(..32)?, 16).ok().map(Stream::Lineage)
}

/// The failure of a server that must not be used and is certainly no primary. It counts as a replica, so that another
/// server can become the primary of the pool.
fn no_primary(reason: String) -> CheckFailure {
    CheckFailure::Unfit {
        reason,
        facts: Box::new(ServerFacts {
            role: Some(Role::Replica),
            ..ServerFacts::default()
        }),
    }
}

/// A field in the reply to `INFO`: lines of `name:value`.
fn field<'a>(reply: Option<&'a RespValue>, name: &str) -> Option<&'a str> {
    let mut lines = reply?.text()?.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests;
