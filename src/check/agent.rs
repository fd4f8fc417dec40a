//! The check `agent`: a program on the server's host says whether the server is to be used, and with which weight. The
//! server itself is checked as by `tcp`.
//!
//! The protocol is that of HAProxy's `agent-check`: the agent sends a line and closes.

mod reply;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::tcp::connect_and_reset;
use super::tls::{TlsCheck, TlsProbe, open, optional_settings};
use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::pool::AgentSettings;
use reply::AgentReply;

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "agent",
    health_keys: &["send", "tls", "sni", "verify", "ca_file"],
    pool_keys: &[],
    service: None,
};

/// The most bytes of a reply.
const REPLY_BYTES_MAX: u64 = 1024;

/// After the agent has not replied this many times in a row, what it has set no longer holds. Checks that do not ask
/// it, because the connect to the server fails, do not count.
const MISSES_MAX: u32 = 3;

/// The check `agent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCheck {
    /// What is sent first; empty: nothing.
    pub send: Box<[u8]>,
    /// The TLS with the agent; `None`: it is asked without TLS.
    pub tls: Option<TlsCheck>,
}

impl Check for AgentCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { send, tls } = self;
        let mut settings = vec![("health.send", format!("{send:?}"))];
        settings.extend(optional_settings(tls.as_ref()));
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.iter().flat_map(TlsCheck::files).collect()
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(AgentProbe::new(self, target))
    }
}

struct AgentProbe {
    check: Arc<AgentCheck>,
    /// The agent. It is not the server itself, so it gets no PROXY header.
    agent: CheckTarget,
    tls: Option<TlsProbe>,
    server: CheckTarget,
    // A blocking mutex: locked for a few lines.
    state: Mutex<AgentState>,
}

/// The settings of an agent so far: a reply changes only those that it mentions.
#[derive(Debug, Default)]
struct AgentState {
    settings: AgentSettings,
    /// Why the server is down, in the agent's words; `None`: it is not down.
    down: Option<String>,
    /// How many times in a row the agent was asked and has not replied.
    misses: u32,
}

impl Probe for AgentProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            let began = Instant::now();
            connect_and_reset(&self.server).await?;
            let reply = timeout(self.agent_timeout(began.elapsed()), self.ask()).await;
            let reply = reply.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
            self.state.lock().record(reply)
        })
    }
}

impl AgentProbe {
    fn new(check: Arc<AgentCheck>, target: CheckTarget) -> Self {
        let mut agent = target.clone();
        agent.connect.proxy_protocol = None;
        let tls = check.tls.clone();
        let mut server = target;
        server.address = server.session_address;
        Self {
            tls: tls.map(|tls| TlsProbe::new(Arc::new(tls), agent.clone())),
            check,
            agent,
            server,
            state: Mutex::default(),
        }
    }

    /// How long the agent may take, if connecting to the server took `connect_time`: half of the time that is left, so
    /// that the check of the server never times out because of a silent agent.
    fn agent_timeout(&self, connect_time: Duration) -> Duration {
        self.agent.timeout.saturating_sub(connect_time) / 2
    }

    /// Asks the agent.
    ///
    /// # Errors
    /// Those of connecting, writing and reading, or the agent sends nothing.
    async fn ask(&self) -> Result<AgentReply, CheckFailure> {
        let (mut stream, _) = open(&self.agent, self.tls.as_ref()).await?;
        if !self.check.send.is_empty() {
            stream.write_all(&self.check.send).await?;
            stream.flush().await?;
        }
        let mut bytes = Vec::new();
        let mut stream = stream.take(REPLY_BYTES_MAX);
        while !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')) && stream.read_buf(&mut bytes).await? > 0 {}
        AgentReply::parse(&bytes)
            .ok_or_else(|| io::Error::other("the agent closed the connection without a reply").into())
    }
}

impl AgentState {
    /// Records a reply, or a failure to get one, unless this host caused the failure. Returns the result of the check
    /// of the server, which has accepted a connection.
    fn record(&mut self, reply: Result<AgentReply, CheckFailure>) -> Result<CheckPass, CheckFailure> {
        let mut agent_lost = None;
        match reply {
            Ok(reply) => {
                self.misses = 0;
                reply.apply(&mut self.settings, &mut self.down);
            }
            Err(failure) if failure.is_of_this_host() => return Err(failure),
            Err(failure) => {
                tracing::debug!(error = %failure.reason(), "no agent reply");
                self.misses = self.misses.saturating_add(1);
                if self.misses >= MISSES_MAX {
                    let had_effect = self.settings != AgentSettings::default() || self.down.is_some();
                    agent_lost = had_effect.then(|| failure.reason().into_owned());
                    (self.settings, self.down) = (AgentSettings::default(), None);
                }
            }
        }
        match &self.down {
            Some(reason) => Err(CheckFailure::Down {
                reason: reason.clone(),
                agent: self.settings,
            }),
            None => Ok(CheckPass {
                agent: self.settings,
                agent_lost,
                ..CheckPass::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::AdminState;

    fn said(text: &str) -> Result<AgentReply, CheckFailure> {
        Ok(AgentReply::parse(text.as_bytes()).unwrap())
    }

    #[tokio::test]
    async fn an_agent_that_sends_nothing_has_not_replied() {
        let agent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let check = AgentCheck {
            send: Box::default(),
            tls: None,
        };
        let probe = AgentProbe::new(Arc::new(check), CheckTarget::for_test(agent.local_addr().unwrap()));
        let close = async { drop(agent.accept().await.unwrap()) };
        let (reply, ()) = tokio::join!(probe.ask(), close);
        assert_eq!(
            reply.unwrap_err().reason(),
            "the agent closed the connection without a reply"
        );
    }

    #[test]
    fn a_silent_agent_leaves_time_in_a_check_whose_connect_took_long() {
        let check = AgentCheck {
            send: Box::default(),
            tls: None,
        };
        let target = CheckTarget::for_test(([127, 0, 0, 1], 1).into());
        let timeout = target.timeout;
        let probe = AgentProbe::new(Arc::new(check), target);
        assert_eq!(probe.agent_timeout(Duration::ZERO), timeout / 2);
        for connect in [timeout / 2, timeout * 3 / 4, timeout * 99 / 100] {
            let left = timeout - connect - probe.agent_timeout(connect);
            assert!(left >= (timeout - connect) / 2, "{left:?}");
        }
    }

    #[test]
    fn an_agent_setting_holds_until_changed_or_the_agent_is_gone() {
        let mut state = AgentState::default();
        let mut settings = |reply| state.record(reply).map(|pass| pass.agent);
        let gone = || Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        let set = |admin_state, weight_percent| AgentSettings {
            admin_state,
            weight_percent,
        };
        assert_eq!(
            settings(said("drain 75%\n")).unwrap(),
            set(AdminState::Draining, Some(75))
        );
        assert_eq!(settings(said("50%\n")).unwrap(), set(AdminState::Draining, Some(50)));
        assert!(
            matches!(settings(said("fail#disk")), Err(CheckFailure::Down { reason, agent }) if agent == set(AdminState::Draining, Some(50)) && reason == "the agent says: fail: disk")
        );
        let missed = settings(gone());
        assert!(
            matches!(missed, Err(CheckFailure::Down { .. })),
            "one missing reply changes nothing"
        );
        assert_eq!(
            settings(said("up ready\n")).unwrap(),
            set(AdminState::Enabled, Some(50))
        );
        for _ in 0..MISSES_MAX {
            let shortage = settings(Err(io::Error::from_raw_os_error(libc::EMFILE).into()));
            assert!(matches!(shortage, Err(CheckFailure::Shortage(_))));
        }
        assert_eq!(
            settings(said("ready\n")).unwrap(),
            set(AdminState::Enabled, Some(50)),
            "a shortage of this host is no missing reply"
        );
        assert!(matches!(settings(said("down\n")), Err(CheckFailure::Down { .. })));
        for _ in 1..MISSES_MAX {
            assert!(matches!(settings(gone()), Err(CheckFailure::Down { .. })));
        }
        let pass = state.record(gone()).unwrap();
        assert_eq!(pass.agent, AgentSettings::default());
        assert!(pass.agent_lost.is_some());
        assert_eq!(state.record(gone()).unwrap().agent_lost, None, "reported only once");
    }
}
