//! The check `tcp`: the server's kernel answers a TCP handshake. The server's program does not see the connection,
//! unless the server is a Unix socket, or acequia is held up for 200 ms (by SIGSTOP, for example) in the middle of the
//! check.

use std::io;
use std::sync::Arc;

use super::{Check, CheckFailure, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::dial::{LastAck, connect};
use crate::socket::reset;

/// The kind `tcp`.
pub static KIND: CheckKind = CheckKind {
    name: "tcp",
    health_keys: &[],
    pool_keys: &[],
    service: None,
};

/// The check `tcp`; it has no settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpCheck;

impl Check for TcpCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        Box::new(TcpProbe { target })
    }
}

struct TcpProbe {
    target: CheckTarget,
}

impl Probe for TcpProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            connect_and_reset(&self.target).await?;
            Ok(CheckPass::default())
        })
    }
}

/// Connects, and resets the connection. No byte is sent, not even a PROXY header.
///
/// Over TCP, the reset is sent in place of the last ACK of the handshake: the kernel delays that ACK in the hope of
/// data to send along. So the server's accept queue does not get the connection. That of a Unix socket does.
///
/// # Errors
/// Those of connecting.
pub(super) async fn connect_and_reset(target: &CheckTarget) -> io::Result<()> {
    reset(connect(&target.address, &target.connect, None, LastAck::Delayed).await?);
    Ok(())
}

/// The failure to report when something on this host prevents a check. Tries to connect to the server. Returns why that
/// fails, or `prevented` if it succeeds.
pub(super) async fn connect_error_or(target: &CheckTarget, prevented: CheckFailure) -> CheckFailure {
    match connect_and_reset(target).await {
        Ok(()) => prevented,
        Err(error) => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::{ConnectOptions, TEST_CONNECT};
    use crate::proxy_protocol::Version;

    #[tokio::test]
    async fn a_tcp_check_is_never_accepted_and_fails_without_a_listener() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let target = CheckTarget {
            connect: ConnectOptions {
                proxy_protocol: Some(Version::V2),
                ..TEST_CONNECT
            },
            ..CheckTarget::for_test(server.local_addr().unwrap())
        };
        for _ in 0..20 {
            connect_and_reset(&target).await.unwrap();
        }
        // On loopback a reset is delivered before the call that sends it returns.
        assert_eq!(server.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(server);
        let refused = connect_and_reset(&target).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
