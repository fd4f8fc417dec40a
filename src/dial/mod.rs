//! stub
use crate::socket::SocketOptions;
use std::time::Duration;
/// How a server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialLimits {
    /// One attempt.
    pub connect_timeout: Duration,
    /// Further attempts, each on another server.
    pub retries: u32,
    /// Of the servers' sockets.
    pub socket: SocketOptions,
    /// The header that tells the server whom the connection speaks for.
    pub proxy_protocol: ProxyProtocol,
}
/// The PROXY protocol's version, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No header.
    Off,
    /// The text form.
    V1,
    /// The binary form.
    V2,
}
