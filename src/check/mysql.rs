//! The check `mysql`: the server is MySQL or MariaDB. If the check has a user, the server must accept the login. It
//! then says whether it takes writes, how far it is behind, and whether it is in sync with its Galera cluster.
//!
//! The client is our own. Clients of other crates open their connections themselves: without a PROXY header, without
//! the options of the pool's sockets, and without a limit for what they read. They also bring a second library of
//! cryptography.

mod packet;
mod login;
mod query;
mod status;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::Instant;

use super::kind::ROLE_KEYS;
use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, PasswordLogin, Probe, RunningCheck, Service, tcp};
use crate::pool::{Numbering, Role, ServerFacts, Stream};
use crate::tls::unverified_config;
use login::{Account, log_in};
use packet::{MysqlFailure, Packets};
use status::{GaleraMember, MysqlStatus, STOPPED};

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "mysql",
    health_keys: &["user", "password_file", "donor"],
    pool_keys: &ROLE_KEYS,
    service: Some(Service {
        name: "MySQL",
        accepts_proxy_header: true, // MariaDB and Percona Server, if they are configured to
        hint_without_hello: Some(
            "its servers send first: sessions end as `hello_timeout`; give the pool a listener of its own",
        ),
    }),
};

/// The check `mysql`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MysqlCheck {
    /// How to log in; `None`: the check tries a login that the server is expected to deny. It passes whether the server
    /// denies or accepts that login.
    pub login: Option<PasswordLogin>,
    /// Whether a member of a Galera cluster is used while it copies its data to another member.
    pub donor: DonorUse,
}

/// What happens to a member of a Galera cluster while it is the donor of a state transfer, or desynchronized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DonorUse {
    /// It is used like the others.
    Use,
    /// It is not used.
    Avoid,
}

impl Check for MysqlCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { login, donor } = self;
        let mut settings = Vec::new();
        settings.extend(login.iter().flat_map(PasswordLogin::settings));
        settings.extend((*donor == DonorUse::Avoid).then(|| ("health.donor", format!("{donor:?}"))));
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.login.iter().filter_map(PasswordLogin::file).collect()
    }

    fn learns_role(&self) -> bool {
        self.login.is_some()
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(MysqlProbe::new(self, target))
    }
}

/// The user of a login that the server is expected to deny.
const UNKNOWN_USER: &str = "acequia";

/// For this long after a denied login, checks only connect, because MariaDB logs each denied login. A check that
/// reads the greeting and leaves without a login would be no better: MariaDB logs that, too, and blocks the host after
/// `max_connect_errors` such connections.
const DENIED_LOGIN_INTERVAL: Duration = Duration::from_secs(60);

/// Errors that only deny a login: ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR,
/// ER_SECURE_TRANSPORT_REQUIRED.
const DENIALS: [u16; 3] = [1045, 1698, 3159];

/// ER_HOST_IS_BLOCKED
const HOST_IS_BLOCKED: u16 = 1129;

/// Errors of a server that accepts no session: ER_SERVER_SHUTDOWN, ER_SERVER_OFFLINE_MODE.
const CLOSED: [u16; 2] = [1053, 3032];

/// ER_UNKNOWN_COM_ERROR: a member of a Galera cluster that is not ready sends it for most commands.
const NOT_PREPARED: u16 = 1047;

struct MysqlProbe {
    check: Arc<MysqlCheck>,
    target: CheckTarget,
    /// For a login, if the server offers TLS. No certificate is verified: whoever learns the password can do little
    /// with it, because the user should have no privileges but those that the check needs.
    tls: Arc<ClientConfig>,
    memory: Mutex<Memory>,
}

/// What a check remembers, in a blocking mutex that is locked only to read or to store.
#[derive(Default)]
struct Memory {
    /// When a login was last denied as expected.
    denied: Option<Instant>,
    /// When a lag of the replica was last known, and that lag.
    lag: Option<(Instant, Duration)>,
}

impl Probe for MysqlProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            match &self.check.login {
                Some(login) => Ok(self.log_in_and_ask(login).await?.into()),
                None => {
                    self.expect_denial().await?;
                    Ok(CheckPass::default())
                }
            }
        })
    }
}

impl MysqlProbe {
    fn new(check: Arc<MysqlCheck>, target: CheckTarget) -> Self {
        Self {
            check,
            target,
            tls: unverified_config(),
            memory: Mutex::default(),
        }
    }

    /// Runs the check without a configured user: tries a login that the server is expected to deny. If the server
    /// accepts the login, the check passes, too.
    async fn expect_denial(&self) -> Result<(), CheckFailure> {
        let denied = self.memory.lock().denied;
        if denied.is_some_and(|at| at.elapsed() < DENIED_LOGIN_INTERVAL) {
            return Ok(tcp::connect_and_reset(&self.target).await?);
        }
        self.memory.lock().denied = None;
        let account = Account {
            user: UNKNOWN_USER,
            password: Vec::new(),
        };
        match self.open_session(&account, None).await {
            Ok(packets) => packets.quit().await,
            Err(MysqlFailure::Server { code, .. }) if DENIALS.contains(&code) => {
                self.memory.lock().denied = Some(Instant::now());
            }
            Err(failure) => return Err(self.explain(failure)),
        }
        Ok(())
    }

    async fn log_in_and_ask(&self, login: &PasswordLogin) -> Result<ServerFacts, CheckFailure> {
        let password = match login.password().await {
            Ok(password) => password,
            Err(prevented) => return Err(tcp::connect_error_or(&self.target, prevented).await),
        };
        let account = Account {
            user: &login.user,
            password: password.unwrap_or_default(),
        };
        let ask = async {
            let mut packets = self.open_session(&account, Some(&self.tls)).await?;
            let answer = MysqlStatus::ask(&mut packets).await?;
            packets.quit().await;
            Ok(answer)
        };
        let answer = ask.await.map_err(|failure| self.explain(failure))?;
        self.check.donor.judge(answer.galera.as_ref())?;
        let is_primary = answer.role == Role::Primary;
        let lag = if is_primary {
            self.memory.lock().lag = None; // its last known lag is from before its promotion
            None
        } else {
            self.memory.lock().lag_now(answer.lag)
        };
        Ok(ServerFacts {
            role: Some(answer.role),
            is_multi_primary: is_primary && answer.galera.is_some(),
            lag,
            numbering: Numbering::None,
            stream: answer.source.map(Stream::Source),
            ..ServerFacts::default()
        })
    }

    /// Connects and logs in, in TLS if the server offers it and there is a configuration for it.
    async fn open_session(
        &self,
        account: &Account<'_>,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Packets, MysqlFailure> {
        let stream = self.target.connect().await?;
        let tls = tls.map(|config| (config, &self.target));
        let is_unix = self.target.address.unix().is_some();
        log_in(Packets::new(Box::new(stream), is_unix), account, tls).await
    }

    /// What a failure says about the server. A server that sends an error is alive, whatever the error.
    fn explain(&self, failure: MysqlFailure) -> CheckFailure {
        let (code, reason) = match failure {
            MysqlFailure::Io(error) => return error.into(),
            MysqlFailure::Server { code, message } => (code, message),
        };
        if code == NOT_PREPARED {
            return unfit_member(reason);
        }
        // If the server gets the addresses of clients by PROXY headers, it has blocked this host, but not the clients.
        let blocks_sessions = code == HOST_IS_BLOCKED && self.target.connect.proxy_protocol.is_none();
        CheckFailure::Refused {
            accepts_sessions: !CLOSED.contains(&code) && !blocks_sessions,
            reason,
        }
    }
}

impl Memory {
    /// How far the replica is behind. `said` is the lag that the replica reports: [`STOPPED`] while one of its threads
    /// is stopped, `None` if it reports no lag.
    ///
    /// In these two cases, the last known lag counts, and grows with every second. If no lag was ever known, the result
    /// is `said`.
    fn lag_now(&mut self, said: Option<Duration>) -> Option<Duration> {
        let now = Instant::now();
        if let Some(lag) = said.filter(|lag| *lag != STOPPED) {
            self.lag = Some((now, lag));
        }
        self.lag.map(|(at, lag)| lag.saturating_add(now - at)).or(said)
    }
}

impl DonorUse {
    /// Judges a member of a Galera cluster; `None`: the server is no member of one.
    ///
    /// # Errors
    /// [`CheckFailure::Unfit`]: the member is not in sync with its cluster, or a donor that is to be avoided.
    fn judge(self, member: Option<&GaleraMember>) -> Result<(), CheckFailure> {
        let Some(member) = member else { return Ok(()) };
        let reason = if !member.is_ready {
            "the Galera node is not ready".to_owned()
        } else if member.cluster_status != "Primary" {
            format!("the Galera node is in a component that is {}", member.cluster_status)
        } else if member.is_donor && self == Self::Avoid {
            "the Galera node is a donor".to_owned()
        } else {
            return Ok(());
        };
        Err(unfit_member(reason))
    }
}

/// The failure of a member of a Galera cluster that must not be used. Its facts say that the cluster has several
/// primaries, so that its members do not count as rivals.
fn unfit_member(reason: String) -> CheckFailure {
    CheckFailure::Unfit {
        reason,
        facts: Box::new(ServerFacts {
            is_multi_primary: true,
            ..ServerFacts::default()
        }),
    }
}

#[cfg(test)]
mod tests;
