//! The facts about a session, from accept to its access log record.

use std::num::NonZeroU32;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::access_log::{AccessRecord, ClientCertFields, TlsFields};
use super::queue_wait::QueueWait;
use super::{Ending, ListenerSeries, LogLine, SessionExtras, SessionProtocol, SessionRoute, SessionTls};
use crate::addr::{ClientAddr, PeerAddr};
use crate::ends::Endpoints;
use crate::pool::{FallbackOrigin, Server};
use crate::proxy_protocol::ProxyAddresses;
use crate::relay::Traffic;
use crate::sniff::postgres::StartupMessage;
use crate::tcp_info::TcpInfo;
use crate::tls::TlsSummary;

/// The known facts about a session.
#[derive(Debug)]
pub struct SessionInfo {
    pub(super) listener: Arc<ListenerSeries>,
    pub(super) peer: PeerAddr,
    /// The server name of the ClientHello; escaped if it is not a valid name.
    pub sni: Option<Arc<str>>,
    /// The ALPN protocols of the ClientHello, separated by commas.
    pub alpn: Option<Box<str>>,
    /// Whether the ClientHello was the outer one of Encrypted Client Hello.
    pub ech: bool,
    /// Whether the client has sent a ClientHello.
    pub has_hello: bool,
    /// The TLS that is terminated or begun here, and the PostgreSQL startup. Boxed: most sessions have neither.
    pub protocol: Option<Box<SessionProtocol>>,
    /// The matching route.
    pub route: Option<SessionRoute>,
    /// The field `detail` of the access log: a word that says more, mostly about the ending, such as `tls_required`.
    pub detail: Option<&'static str>,
    /// If the session gets a substitute for the servers of a pool (a fallback, or the primary in place of replicas):
    /// that pool, which had no usable server.
    pub fallback_from: Option<Arc<FallbackOrigin>>,
    /// What guards and a peer in front say of the session, and its waits in queues. Boxed: most sessions have none of
    /// these.
    pub extras: Option<Box<SessionExtras>>,
    pub(super) pool: Option<Arc<str>>,
    pub(super) server: Option<Arc<Server>>,
    /// The sockets while the relay runs. They close when the session drops them.
    pub(super) endpoints: Option<Weak<Endpoints>>,
    /// Whether the relay has ended, or the session needs none.
    pub is_past_relay: bool,
    /// Attempts to connect to a server, including the current one, counted up to 255.
    pub(super) attempts: u8,
    /// Time from accept to the end of sniffing.
    pub(super) hello_duration: Option<Microseconds>,
    /// Duration of the successful connect.
    pub(super) connect_duration: Option<Microseconds>,
    /// Time from accept to the end of the successful connect.
    pub(super) connected_after: Option<Milliseconds>,
    /// TCP_INFO of the client's socket and of the server's, at the end of the relay. Boxed to keep open sessions small.
    pub(super) tcp_info: Option<Box<[Option<TcpInfo>; 2]>>,
}

impl SessionInfo {
    /// The info of a session that was just accepted.
    pub(super) fn new(listener: Arc<ListenerSeries>, peer: PeerAddr) -> Self {
        Self {
            listener,
            peer,
            sni: None,
            alpn: None,
            ech: false,
            has_hello: false,
            protocol: None,
            route: None,
            detail: None,
            fallback_from: None,
            extras: None,
            pool: None,
            server: None,
            endpoints: None,
            is_past_relay: false,
            attempts: 0,
            hello_duration: None,
            connect_duration: None,
            connected_after: None,
            tcp_info: None,
        }
    }

    /// The client on whose behalf the peer connected, or the peer itself.
    #[must_use]
    pub fn client(&self) -> ClientAddr {
        let forwarded = self.extras.as_ref().and_then(|extras| extras.forwarded.as_ref());
        match forwarded.map(|header| &header.addresses) {
            Some(ProxyAddresses::Tcp { client, .. }) => *client,
            _ => self.peer.into(),
        }
    }

    /// Sets the sockets of the relay.
    pub(super) fn set_endpoints(&mut self, endpoints: &Arc<Endpoints>) {
        self.endpoints = Some(Arc::downgrade(endpoints));
    }

    /// Whether the session is connected to its server. A PostgreSQL session is connected already during its login.
    pub(super) fn is_connected(&self) -> bool {
        self.connect_duration.is_some() && !self.is_past_relay
    }

    /// Notes that the session is connected to its server, and forgets why the TLS of an earlier attempt failed. `took`:
    /// how long the attempt took. `age`: the time since the session was accepted.
    pub(super) fn set_connected(&mut self, took: Duration, age: Duration) {
        (self.connect_duration, self.connected_after) = (Some(took.into()), Some(age.into()));
        if let Some(protocol) = &mut self.protocol {
            (protocol.tls.error, protocol.tls.refusal) = (None, None);
        }
    }

    /// Notes that the session is not connected after all, and has no server.
    pub(super) fn set_unconnected(&mut self) {
        (self.connect_duration, self.connected_after, self.server) = (None, None, None);
    }

    /// The facts about the TLS that is terminated or begun here.
    pub fn tls_mut(&mut self) -> &mut SessionTls {
        &mut self.protocol.get_or_insert_default().tls
    }

    /// The TLS that was agreed with a client whose TLS is terminated here.
    #[must_use]
    pub fn client_tls(&self) -> Option<&TlsSummary> {
        self.protocol.as_ref()?.tls.client.as_ref()
    }

    /// The StartupMessage of a PostgreSQL session, in the clear or decrypted here.
    #[must_use]
    pub fn startup(&self) -> Option<&StartupMessage> {
        self.protocol.as_ref()?.startup.as_ref()
    }

    /// The database that a PostgreSQL session asked for, as text.
    pub(super) fn database(&self) -> Option<String> {
        self.startup().map(|startup| startup_name(&startup.database))
    }

    /// The user that a PostgreSQL session named, as text.
    pub(super) fn user(&self) -> Option<String> {
        self.startup().map(|startup| startup_name(&startup.user))
    }

    /// Whether the session was refused and is not logged, because too many are refused.
    #[must_use]
    pub fn is_suppressed(&self) -> bool {
        self.extras
            .as_ref()
            .is_some_and(|extras| extras.log_line == LogLine::Suppressed)
    }

    /// Whether the session has begun to wait in the queue of a pool.
    pub(super) fn has_waited(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.queue.is_some())
    }

    /// The pool's name; empty if none was chosen.
    pub(super) fn pool_or_empty(&self) -> Arc<str> {
        self.pool.clone().unwrap_or_else(|| Arc::from(""))
    }

    /// Builds the access log record when the session ends. `id`, `traffic` and `duration` are those of the session.
    pub(super) fn access_record(&self, id: u64, traffic: &Traffic, ending: Ending, duration: Duration) -> AccessRecord {
        let to_ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
        let [client, server] = self.tcp_info.as_deref().copied().unwrap_or_default();
        let extras = self.extras.as_deref();
        let forwarded = extras.and_then(|extras| extras.forwarded.as_ref());
        let refusal = extras.and_then(|extras| extras.refusal.as_ref());
        let queue = extras.and_then(|extras| extras.queue.as_ref());
        let to_string = |shared: &Option<Arc<str>>| shared.as_deref().map(str::to_owned);
        AccessRecord {
            time: Some(SystemTime::now()),
            session: id,
            listener: self.listener.name().to_string(),
            peer: self.peer.to_string(),
            client: self.client().to_string(),
            sni: to_string(&self.sni),
            alpn: self.alpn.as_deref().map(str::to_owned),
            ech: self.ech,
            route: self.route.as_ref().map(|route| route.name().to_string()),
            pool: to_string(&self.pool),
            fallback_from: self.fallback_from.as_ref().map(|origin| origin.pool().to_string()),
            server: self.server.as_ref().map(|server| server.spec().label.to_string()),
            attempts: self.attempts.into(),
            queue_position: queue.map(QueueWait::position),
            queue_ms: queue.map(|queue| to_ms(queue.waited())),
            woken_ms: queue.and_then(QueueWait::woken_after).map(to_ms),
            hello_ms: self.hello_duration.map(|duration| to_ms(duration.into())),
            connect_ms: self.connect_duration.map(|duration| to_ms(duration.into())),
            duration_ms: to_ms(duration),
            bytes_up: traffic.up.bytes(),
            bytes_down: traffic.down.bytes(),
            ending: ending.as_str(),
            detail: self.detail,
            database: self.database(),
            user: self.user(),
            proxy_authority: forwarded.and_then(|header| header_text(header.authority.as_deref())),
            proxy_unique_id: forwarded.and_then(|header| header_text(header.unique_id.as_deref())),
            guard: refusal.map(|(guard, _)| guard.to_string()),
            guard_reason: refusal.map(|(_, reason)| reason.as_str()),
            suppressed: extras.and_then(|extras| match extras.log_line {
                LogLine::After(suppressed) => Some(suppressed),
                LogLine::Usual | LogLine::Suppressed => None,
            }),
            tls: self.tls_fields(),
            client_rtt_us: client.map(|info| info.rtt_us),
            server_rtt_us: server.map(|info| info.rtt_us),
            client_retrans: client.map(|info| info.retransmits),
            server_retrans: server.map(|info| info.retransmits),
        }
    }

    /// The fields of TLS. If TLS was passed on, `tls` is `pass` and the others are empty.
    fn tls_fields(&self) -> TlsFields {
        let Some(tls) = self.protocol.as_ref().map(|protocol| &protocol.tls) else {
            return TlsFields {
                // Without a pool nothing was passed on.
                tls: (self.has_hello && self.pool.is_some()).then_some("pass"),
                ..TlsFields::default()
            };
        };
        let text = |text: &str| text.to_owned();
        let (client, server) = (tls.client.as_ref(), tls.server.as_ref());
        TlsFields {
            tls: client.map(|client| client.version),
            tls_cipher: client.and_then(|client| client.cipher.as_deref().map(text)),
            tls_group: client.and_then(|client| client.group.as_deref().map(text)),
            tls_resumed: client.map(|client| client.resumed),
            client_cert: client
                .and_then(|client| client.peer.as_ref())
                .map(|peer| ClientCertFields {
                    subject: text(&peer.subject),
                    sha256: text(&peer.fingerprint),
                }),
            tls_error: tls.error.as_ref().map(ToString::to_string),
            tls_refusal: tls.refusal.as_deref().map(text),
            server_tls: server.map(|server| server.version),
        }
    }
}

/// A duration that takes 4 bytes, even in an `Option`: an open session keeps two of these, and must stay small.
/// Durations below 1 µs count as 1 µs, those above 71 minutes as 71 minutes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Microseconds(NonZeroU32);

impl From<Duration> for Microseconds {
    fn from(duration: Duration) -> Self {
        let micros = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN))
    }
}

impl From<Microseconds> for Duration {
    fn from(micros: Microseconds) -> Self {
        Self::from_micros(micros.0.get().into())
    }
}

/// A duration that takes 4 bytes, for the same reason as [`Microseconds`]. It is rounded up, to at least 1 ms.
/// Durations above 49 days count as 49 days.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milliseconds(NonZeroU32);

impl From<Duration> for Milliseconds {
    fn from(duration: Duration) -> Self {
        let subsecond = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
        let millis =
            u32::try_from(duration.as_secs().saturating_mul(1_000).saturating_add(subsecond)).unwrap_or(u32::MAX);
        Self(NonZeroU32::new(millis).unwrap_or(NonZeroU32::MIN))
    }
}

impl From<Milliseconds> for Duration {
    fn from(millis: Milliseconds) -> Self {
        Self::from_millis(millis.0.get().into())
    }
}

/// A name in a StartupMessage, as text.
fn startup_name(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// A value of a PROXY header for the log: its first 255 bytes, escaped.
fn header_text(value: Option<&[u8]>) -> Option<String> {
    const VALUE_BYTES_MAX: usize = 255;
    value.map(|value| value[..value.len().min(VALUE_BYTES_MAX)].escape_ascii().to_string())
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::account::{Metrics, Record};

    #[test]
    fn microseconds_saturate_at_one_microsecond_and_71_minutes() {
        let kept = |duration: Duration| Duration::from(Microseconds::from(duration));
        assert_eq!(kept(Duration::ZERO), Duration::from_micros(1));
        assert_eq!(kept(Duration::from_nanos(1_999)), Duration::from_micros(1));
        assert_eq!(kept(Duration::from_millis(5_000)), Duration::from_secs(5));
        assert_eq!(kept(Duration::MAX), Duration::from_micros(u32::MAX.into()));
    }

    #[test]
    fn milliseconds_are_rounded_up_and_saturate() {
        let kept = |duration: Duration| Duration::from(Milliseconds::from(duration));
        assert_eq!(kept(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(kept(Duration::from_micros(2_001)), Duration::from_millis(3));
        assert_eq!(kept(Duration::from_hours(2)), Duration::from_hours(2));
        assert_eq!(kept(Duration::MAX), Duration::from_millis(u32::MAX.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_counts_as_connected_from_the_end_of_the_successful_attempt() {
        let second = Duration::from_secs(1);
        let series = Metrics::new().listener(&"l".into());
        let accepted_at = Instant::now();
        let record = Record::new(
            1,
            accepted_at,
            SessionInfo::new(series, PeerAddr::new("192.0.2.1:1".parse().unwrap())),
        );
        // The hello of the session, its wait in a queue, and its attempts take this long. The last attempt takes 2 s.
        advance(30 * second).await;
        record.info().set_connected(2 * second, record.age());
        advance(7 * second).await;
        assert_eq!((record.age(), record.age_on_server()), (37 * second, 7 * second));
        let is_after = |after| record.is_connected_after(accepted_at + after);
        assert!(is_after(29 * second) && !is_after(30 * second));
    }
}
