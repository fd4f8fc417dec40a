//! What is known of a session, from its first moment to its line in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::access_log::AccessRecord;
use super::record::{Ends, EndsSeen};
use super::{Ending, ListenerSeries, Record};
use crate::addr::{ClientAddr, PeerAddr};
use crate::pool::Server;
use crate::tcp_info::TcpInfo;

/// What is known of a session; for its line in the log.
#[derive(Debug)]
pub struct Facts {
    pub(super) listener: Arc<ListenerSeries>,
    pub(super) peer: PeerAddr,
    /// Whom the peer speaks for.
    pub client: ClientAddr,
    /// The server name asked for, as far as it can be shown.
    pub sni: Option<Arc<str>>,
    /// The protocols offered, separated by commas.
    pub alpn: Option<Box<str>>,
    /// Whether the ClientHello was an outer one.
    pub ech: bool,
    /// The route that was taken.
    pub route: Option<Arc<str>>,
    /// What else the line in the log says, in one word.
    pub detail: Option<&'static str>,
    pub(super) pool: Option<Arc<str>>,
    pub(super) server: Option<Arc<Server>>,
    pub(super) ends: EndsSeen,
    pub(super) attempts: u32,
    pub(super) hello: Option<Duration>,
    pub(super) connect: Option<Duration>,
    /// What the kernel knew of the client's side and the server's, at the end.
    pub(super) tcp_info: [Option<TcpInfo>; 2],
}

impl Facts {
    pub(super) fn new(listener: Arc<ListenerSeries>, peer: PeerAddr) -> Self {
        Self {
            listener,
            peer,
            client: peer.into(),
            sni: None,
            alpn: None,
            ech: false,
            route: None,
            detail: None,
            pool: None,
            server: None,
            ends: None,
            attempts: 0,
            hello: None,
            connect: None,
            tcp_info: [None; 2],
        }
    }

    /// The session is on this server, and its bytes flow between these.
    pub(super) fn flows(&mut self, ends: &Arc<Ends>) {
        self.ends = Some(Arc::downgrade(ends));
    }

    /// The server's label.
    pub(super) fn server_label(&self) -> Option<String> {
        let label = |server: &Arc<Server>| server.spec().label.to_string();
        self.server.as_ref().map(label)
    }

    /// The line of the log, at the end.
    pub(super) fn line(&self, record: &Record, ending: Ending, took: Duration) -> AccessRecord {
        let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let [client, server] = self.tcp_info;
        let text = |shared: &Option<Arc<str>>| shared.as_deref().map(str::to_owned);
        AccessRecord {
            time: Some(SystemTime::now()),
            session: record.id(),
            listener: self.listener.name().to_string(),
            peer: self.peer.to_string(),
            client: self.client.to_string(),
            sni: text(&self.sni),
            alpn: self.alpn.as_deref().map(str::to_owned),
            ech: self.ech,
            route: text(&self.route),
            pool: text(&self.pool),
            server: self.server_label(),
            attempts: self.attempts,
            hello_ms: self.hello.map(ms),
            connect_ms: self.connect.map(ms),
            duration_ms: ms(took),
            bytes_up: record.traffic.up.bytes(),
            bytes_down: record.traffic.down.bytes(),
            ending: ending.as_str(),
            detail: self.detail,
            client_rtt_us: client.map(|info| info.rtt_us),
            server_rtt_us: server.map(|info| info.rtt_us),
            client_retrans: client.map(|info| info.retransmits),
            server_retrans: server.map(|info| info.retransmits),
        }
    }
}
