//! What the kinds of checks have in common: how they are configured, described and run.
//!
//! **How a kind reports.** A check judges nothing that depends on a pool: several pools with different requirements may
//! use the result of one run. A run ends in one of these ways:
//! - [`CheckPass`]: the server works. [`CheckPass::facts`] holds what it says of itself (its role, its history, its
//!   lag) as plain values; a fact that cannot be learnt is `None`. Each pool compares the facts with its `role` and
//!   `max_lag` ([`crate::pool::RoleRequirement`]). A kind that can report a role names [`ROLE_KEYS`] in its
//!   [`pool_keys`](CheckKind::pool_keys), and implements [`Check::learns_role`].
//! - [`CheckFailure::Refused`]: the server answered, so it lives, but it did not let the check in.
//! - [`CheckFailure::Down`]: the server, or its agent, says that it does not work. It is down at once, whatever `fall`
//!   is.
//! - [`CheckFailure::Unfit`]: the server works, but no pool is to use it. It is down at once, too. Examples are a
//!   member that is not in sync with its cluster, and a replica that does not follow its primary. The check still
//!   reports what it knows of the server's role.
//! - [`CheckFailure::Shortage`]: this host is short of a resource. The run does not count.
//! - [`CheckFailure::Local`]: this host lacks something that the check needs, such as a file that it cannot read.
//!   The server keeps its state. In a pool with `role` or `max_lag`, it gets no new sessions once `role_trust` is over.
//! - [`CheckFailure::Io`]: everything else.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::addr::ServerAddr;
use crate::dial::{ConnectFailure, ConnectOptions, connect_for_check};
use crate::error::{chain, with_context};
use crate::pool::{AgentSettings, ServerFacts, ServerPath};
use crate::tls::{PoolTls, SentSni};

/// The keys in `[pools.NAME]` of a kind of check that can report the role of a server.
pub(super) const ROLE_KEYS: [&str; 5] = ["role", "max_lag", "on_lag", "single", "role_trust"];

/// A kind of check, without the settings of one check.
#[derive(Debug)]
pub struct CheckKind {
    /// Its value of the key `check`.
    pub name: &'static str,
    /// Its keys in `[pools.NAME.health]`, besides those that all kinds have. Kinds may have keys in common.
    pub health_keys: &'static [&'static str],
    /// Its keys in `[pools.NAME]`.
    pub pool_keys: &'static [&'static str],
    /// The service that it checks, if it is for one service only.
    pub service: Option<Service>,
}

/// The known facts about a service, for warnings about a configuration that does not suit it.
#[derive(Debug)]
pub struct Service {
    /// Its usual name, as in "PostgreSQL".
    pub name: &'static str,
    /// Whether it accepts a PROXY header.
    pub accepts_proxy_header: bool,
    /// If its clients do not begin with a ClientHello: the hint for the warning about a listener that reads one.
    pub hint_without_hello: Option<&'static str>,
}

/// A check as configured. Checks are equal if they are of one kind and configured alike.
pub trait Check: CompareCheck + Any + Debug + Send + Sync {
    /// Its kind.
    fn kind(&self) -> &'static CheckKind;

    /// The files that it reads when it runs and that its own settings name, each with the key that names it.
    fn files(&self) -> Vec<(&'static str, &Path)> {
        Vec::new()
    }

    /// Its keys, as in `health.user`, each with its value as text, so that a reload can report which differ. Keys that
    /// are not set may be left out.
    fn settings(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Whether [`ServerFacts::role`] is set when the check passes, unless the server denies it
    /// ([`CheckPass::role_denied`]). `false`: a pool with `role` or `max_lag` is rejected, because the check needs a
    /// login (`user`) to learn the role.
    fn learns_role(&self) -> bool {
        false
    }

    /// Whether its own settings (`wrong_role` of `http`) say which answers mean a wrong role. Then a pool has the
    /// metric `acequia_server_role_ok` even if it has neither `role` nor `max_lag`.
    fn tells_wrong_role(&self) -> bool {
        false
    }

    /// Whether [`CheckPass::certificate`] is ever set.
    fn reads_certificate(&self) -> bool {
        false
    }

    /// Whether it needs to know for which pool it runs. If so, pools do not share its runs.
    fn is_of_one_pool(&self) -> bool {
        false
    }

    /// Prepares the check of one server.
    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe>;
}

/// The check of one server, ready to run. It keeps what a later run can use.
pub trait Probe: Send + Sync {
    /// Bounds how many checks of its kind run at once in the whole process; the caller holds a permit while the check
    /// runs.
    fn limit(&self) -> Option<&'static Semaphore> {
        None
    }

    /// Runs the check once. The caller bounds its time. Dropping the future leaves nothing behind but work on threads
    /// that may block, such as a file read that hangs, and a killed command that is not reaped yet.
    fn run(&self) -> RunningCheck<'_>;

    /// The error of a run that has just been dropped because its time was over. Its kind is
    /// [`io::ErrorKind::TimedOut`].
    fn timed_out(&self) -> io::Error {
        io::ErrorKind::TimedOut.into()
    }
}

/// A check under way.
pub type RunningCheck<'a> = Pin<Box<dyn Future<Output = Result<CheckPass, CheckFailure>> + Send + 'a>>;

/// The server that a check is about, and how to reach it.
#[derive(Clone, Debug)]
pub struct CheckTarget {
    /// Where checks of the server go.
    pub address: ServerAddr,
    /// The host name in the server's configured address; `None`: it is an IP address or a Unix socket.
    pub host: Option<Box<str>>,
    /// How a connection is opened: as for sessions, so that a check fails where sessions would.
    pub connect: ConnectOptions,
    /// Where sessions of the server go.
    pub session_address: ServerAddr,
    /// The pool and the name of the server; `None` unless [`Check::is_of_one_pool`].
    pub pool_and_server: Option<ServerPath>,
    /// How long the caller lets a run take.
    pub timeout: Duration,
    /// The TLS of sessions with the server; `None`: sessions pass on what their clients send.
    pub tls: Option<Arc<PoolTls>>,
}

#[cfg(test)]
impl CheckTarget {
    /// A server at this address, with a long timeout.
    pub(super) fn for_test(address: std::net::SocketAddr) -> Self {
        Self {
            address: ServerAddr::new(address),
            host: None,
            connect: crate::dial::TEST_CONNECT,
            session_address: ServerAddr::new(address),
            pool_and_server: Some(("p".into(), "s".into())),
            timeout: Duration::from_secs(20),
            tls: None,
        }
    }
}

impl CheckTarget {
    /// Connects, and sends the PROXY header if the server expects one.
    ///
    /// # Errors
    /// Those of [`connect_for_check`].
    pub(super) async fn connect(&self) -> io::Result<TcpStream> {
        connect_for_check(&self.address, &self.connect).await
    }

    /// The IP address to which checks go; if they go to a Unix socket, the loopback address.
    pub(super) fn ip(&self) -> IpAddr {
        self.address.ip().unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// The name for TLS with the server. It is sent unless it is an IP address. A certificate that is verified must be
    /// for it.
    pub(super) fn server_name(&self, sni: &SentSni) -> rustls::pki_types::ServerName<'static> {
        sni.server_name(None, self.host.as_deref(), self.ip())
    }
}

/// From when to when a certificate is valid, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateTimes {
    /// From when.
    pub not_before: i64,
    /// When it expires.
    pub not_after: i64,
}

/// What a check that passed has found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckPass {
    /// What the server says of itself.
    pub facts: ServerFacts,
    /// Why the server does not report its role, in its words; `None`: it does report it, or was not asked.
    pub role_denied: Option<String>,
    /// When the server's certificate is valid; `None`: not known.
    pub certificate: Option<CertificateTimes>,
    /// What the agent of the server has set. Empty for all kinds of checks but `agent`.
    pub agent: AgentSettings,
    /// Why the agent does not answer, if what it had said before no longer holds from this run on.
    pub agent_lost: Option<String>,
}

impl From<ServerFacts> for CheckPass {
    fn from(facts: ServerFacts) -> Self {
        Self {
            facts,
            ..Self::default()
        }
    }
}

/// Why a check did not pass.
#[derive(Debug)]
pub enum CheckFailure {
    /// The check could not be completed, or the answer was not the expected one.
    Io(io::Error),
    /// This host is out of local ports, file descriptors, processes or memory. That says nothing about the server.
    Shortage(io::Error),
    /// This host lacks something that the check needs: a password, a TLS file, a program. That says nothing about the
    /// server.
    Local(io::Error),
    /// The server answered, but did not let the check in.
    Refused {
        /// Why, usually in the server's words.
        reason: String,
        /// Whether it may accept new sessions nevertheless. It does not while it starts up or shuts down.
        accepts_sessions: bool,
    },
    /// The server, or its agent, says that it does not work.
    Down {
        /// Why.
        reason: String,
        /// What the agent of the server has set nevertheless.
        agent: AgentSettings,
    },
    /// The server works, but no pool is to use it.
    Unfit {
        /// Why.
        reason: String,
        /// What is known of the server nevertheless. A server that is certainly no primary counts as a replica.
        facts: Box<ServerFacts>,
    },
}

impl CheckFailure {
    /// The failure if no pool is to use the server, and its role is not known.
    pub(super) fn unfit(reason: impl Into<String>) -> Self {
        Self::Unfit {
            reason: reason.into(),
            facts: Box::default(),
        }
    }

    /// The failure if the check cannot use a file or another thing of this host.
    pub(super) fn local(error: io::Error) -> Self {
        match ConnectFailure::classify(&error).is_local_shortage() {
            true => Self::Shortage(error),
            false => Self::Local(error),
        }
    }

    /// Whether it says nothing about the server.
    pub(super) const fn is_of_this_host(&self) -> bool {
        matches!(self, Self::Shortage(_) | Self::Local(_))
    }

    /// Why. An error is shown with its sources.
    pub(crate) fn reason(&self) -> Cow<'_, str> {
        match self {
            Self::Io(error) | Self::Shortage(error) | Self::Local(error) => chain(error).into(),
            Self::Refused { reason, .. } | Self::Down { reason, .. } | Self::Unfit { reason, .. } => reason.into(),
        }
    }
}

impl From<io::Error> for CheckFailure {
    /// If a stream ended too early, the error says so in the same words, whichever library reported it.
    fn from(error: io::Error) -> Self {
        if ConnectFailure::classify(&error).is_local_shortage() {
            return Self::Shortage(error);
        }
        Self::Io(match error.kind() {
            io::ErrorKind::UnexpectedEof => with_context(error, "the server closed the connection"),
            _ => error,
        })
    }
}

/// Compares checks whose kinds are not known. It is implemented for every [`Check`] that implements [`PartialEq`].
pub trait CompareCheck {
    /// Whether both are of one kind and configured alike.
    fn is_same(&self, other: &dyn Check) -> bool;
}

impl<T: Check + PartialEq> CompareCheck for T {
    fn is_same(&self, other: &dyn Check) -> bool {
        let other: &dyn Any = other;
        other.downcast_ref::<T>() == Some(self)
    }
}

impl PartialEq for dyn Check {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

impl Eq for dyn Check {}

#[cfg(test)]
mod tests {
    use super::super::tcp::TcpCheck;
    use super::super::tls::TlsCheck;
    use super::*;

    #[test]
    fn checks_are_equal_if_kind_and_configuration_are() {
        let tls = |verify| -> Arc<dyn Check> {
            Arc::new(TlsCheck {
                verify: Some(verify),
                ..TlsCheck::default()
            })
        };
        let tcp: Arc<dyn Check> = Arc::new(TcpCheck);
        assert!(*tls(true) == *tls(true));
        assert!(*tls(true) != *tls(false));
        assert!(*tls(true) != *tcp);
    }
}
