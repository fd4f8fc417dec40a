//! The story of one connection, told in one place. The only file that knows all the stages.

mod connected;
mod front;

use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::Instant;

pub use self::front::Front;
use self::front::POSTGRES_SSL_REQUEST;
use crate::account::{Ending, Entry, Ledger};
use crate::addr::ListenAddr;
use crate::dial::{Attempt, DialError, Progress, dial};
use crate::ends::Endpoints;
use crate::listen::Accepted;
use crate::live::LivePool;
use crate::name::ServerName;
use crate::pool::Lease;
use crate::proxy_protocol::{ClientInfo, header};
use crate::relay::{Closed, RelayLimits, Side, relay};
use crate::route::{Choice, Known};
use crate::sniff::alert::Alert;
use crate::sniff::hello::{Hello, ProtocolList};
use crate::sniff::refusal::{no_route, refuse};
use crate::sniff::{SniffError, SniffFailure, Sniffed, sniff};
use crate::socket::{Fault, reset};
use connected::Connected;

/// Serves one client from its first byte to its line in the book.
///
/// No `async fn`: what is needed to arrange a session is gone before its bytes flow, so that an idle one stays small, and
/// with it the front: a session of three days does not hold a plan of three days ago.
pub fn serve(accepted: Accepted, front: Arc<Front>, ledger: &Arc<Ledger>) -> impl Future<Output = ()> + use<> {
    let Accepted {
        socket,
        peer,
        at,
        permit,
    } = accepted;
    let entry = ledger.open(&front.series, peer, at);
    let admitted = Box::pin(async move { admit(socket, front, at, entry).await.map(carry) });
    async move {
        // Awaited where it is: awaited by value, it would be kept beside the value that it comes from.
        let mut carried = pin!(admitted.await);
        if let Some(carried) = carried.as_mut().as_pin_mut() {
            carried.await;
        }
        drop(permit); // after the entry: whoever gets the place finds this session accounted for
    }
}

/// A client and a server who may talk.
struct Admitted {
    ends: Arc<Endpoints>,
    connected: Connected,
    /// What the server gets before anything else.
    first: Vec<u8>,
    limits: RelayLimits,
    entry: Entry,
}

/// Finds a server for the client, or bids it farewell; then the session is over.
async fn admit(mut client: TcpStream, front: Arc<Front>, at: Instant, mut entry: Entry) -> Option<Admitted> {
    match arranged(&mut client, front, at, &mut entry).await {
        Ok(Arranged {
            server,
            connected,
            first,
            limits,
        }) => {
            let ends = Arc::new(Endpoints { client, server });
            entry.flows(&ends);
            Some(Admitted {
                ends,
                connected,
                first,
                limits,
                entry,
            })
        }
        Err(Refusal { ending, farewell }) => {
            match farewell {
                Farewell::Close => drop(client),
                Farewell::Alert(bytes) => refuse(client, bytes).await,
                Farewell::Reset => reset(client),
            }
            entry.close(ending);
            None
        }
    }
}

/// [`arrange`], unless somebody ends the session meanwhile.
async fn arranged(
    client: &mut TcpStream,
    front: Arc<Front>,
    at: Instant,
    entry: &mut Entry,
) -> Result<Arranged, Refusal> {
    let record = Arc::clone(entry.record());
    tokio::select! {
        biased;
        arranged = arrange(client, &front, at, entry) => arranged,
        ending = record.until_cut() => Err(Refusal { ending, farewell: Farewell::Reset }),
    }
}

/// A session that can begin.
struct Arranged {
    server: TcpStream,
    connected: Connected,
    /// What the server gets before anything else.
    first: Vec<u8>,
    limits: RelayLimits,
}

/// Why a session cannot begin, and how the client learns of it.
struct Refusal {
    ending: Ending,
    farewell: Farewell,
}

/// The last a refused client hears of us.
enum Farewell {
    Close,
    /// For those who speak TLS: this record, and an orderly end.
    Alert([u8; 7]),
    /// It was cut.
    Reset,
}

impl Refusal {
    /// Tells a client that speaks TLS why.
    fn of(ending: Ending, hello: Option<&Hello>, why: impl FnOnce(&Hello) -> Alert) -> Self {
        let farewell = hello.map_or(Farewell::Close, |hello| {
            Farewell::Alert(why(hello).record(Some(hello.newest_version)))
        });
        Self { ending, farewell }
    }
}

/// Finds out where the client wants to go, and connects to a server there.
async fn arrange(client: &mut TcpStream, front: &Front, at: Instant, entry: &mut Entry) -> Result<Arranged, Refusal> {
    let sniffed = hear(client, front, at, entry).await?;
    let hello = sniffed.as_ref().and_then(Sniffed::hello);
    let pool = choose(front, hello, entry)?;
    let mut first = told(client, pool, hello, entry);
    let (server, lease) = connect(client, pool, entry)
        .await
        .map_err(|ending| Refusal::of(ending, hello, |_| Alert::InternalError))?;
    first.extend(sniffed.map(|sniffed| sniffed.first.into_vec()).unwrap_or_default());
    let connected = Connected::new(lease, pool);
    Ok(Arranged {
        server,
        connected,
        first,
        limits: front.plan.relay,
    })
}

/// Reads the ClientHello where a route depends on it. Other listeners never wait for the client: a server that speaks
/// first would wait for a client that does the same.
async fn hear(
    client: &mut TcpStream,
    front: &Front,
    at: Instant,
    entry: &mut Entry,
) -> Result<Option<Sniffed>, Refusal> {
    let listener = &front.plan;
    if !listener.routes.needs_hello() {
        return Ok(None);
    }
    let heard = sniff(client, &listener.sniff, at, &front.hello_memory).await;
    entry.heard();
    let sniffed = heard.map_err(|error| {
        entry.traffic().up.add(error.bytes_read);
        unheard(&error)
    })?;
    entry.traffic().up.add(sniffed.first.as_slice().len());
    if sniffed.is_postgres_ssl_request() {
        entry.facts().detail = Some(POSTGRES_SSL_REQUEST);
        front.ssl_request();
    }
    if let Some(hello) = sniffed.hello() {
        let mut facts = entry.facts();
        facts.sni = hello
            .server_name()
            .map(ServerName::shared)
            .or_else(|| hello.raw_name.as_deref().map(Arc::from));
        facts.ech = hello.ech;
        facts.alpn = printable(&hello.alpn);
    }
    Ok(Some(sniffed))
}

fn unheard(error: &SniffError) -> Refusal {
    let ending = match &error.reason {
        SniffFailure::TooSlow => Ending::HelloTimeout,
        SniffFailure::TooLong => Ending::HelloTooLong,
        SniffFailure::LeftEarly => Ending::ClientLeftEarly,
        SniffFailure::Io(error) => broken(Side::Client, Fault::of(error)),
        SniffFailure::Invalid(_) => Ending::HelloInvalid,
    };
    let farewell = error
        .alert()
        .map_or(Farewell::Close, |alert| Farewell::Alert(alert.record(None)));
    Refusal { ending, farewell }
}

/// The protocols offered, as one text for the log: `h2,http/1.1`. Bounded, for it is kept as long as the session.
fn printable(alpn: &ProtocolList) -> Option<Box<str>> {
    const TEXT_BYTES_MAX: usize = 255;
    let mut text = String::new();
    for (number, name) in alpn.iter().enumerate() {
        let name = name.escape_ascii().to_string();
        if text.len() + name.len() > TEXT_BYTES_MAX {
            text.push_str(if number == 0 { "…" } else { ",…" });
            break;
        }
        text.push_str(if number == 0 { "" } else { "," });
        text.push_str(&name);
    }
    (!text.is_empty()).then(|| text.into())
}

/// The pool that the routes give this client.
fn choose<'a>(front: &'a Front, hello: Option<&Hello>, entry: &mut Entry) -> Result<&'a Arc<LivePool>, Refusal> {
    let nothing = ProtocolList::default();
    let known = Known {
        name: hello.and_then(|hello| hello.name.as_ref()),
        alpn: hello.map_or(&nothing, |hello| &hello.alpn),
        client: Some(entry.facts().client),
    };
    let pool = match front.plan.routes.find(&known) {
        Choice::Route { route, pool } => {
            entry.facts().route = Some(Arc::clone(route));
            &front.pools[*pool]
        }
        Choice::Default(pool) => &front.pools[*pool],
        Choice::Refused { route } => {
            entry.facts().route = Some(Arc::clone(route));
            return Err(Refusal::of(Ending::Refused, hello, no_route));
        }
        Choice::NoRoute => return Err(Refusal::of(Ending::NoRoute, hello, no_route)),
    };
    entry.routed(pool.name());
    Ok(pool)
}

/// A connection to a server of the pool; every attempt goes into the books as soon as it is over.
async fn connect(client: &TcpStream, pool: &LivePool, entry: &mut Entry) -> Result<(TcpStream, Lease), Ending> {
    let whom = entry.facts().client;
    let dialled = dial(pool, &pool.plan().dial, client, whom, |progress| match progress {
        Progress::Trying(server) => entry.trying(server),
        Progress::Ended(attempt) => {
            entry.tried(attempt.took, attempt.failure);
            say(pool.name(), &attempt);
        }
    })
    .await;
    dialled.map_err(|reason| match reason {
        DialError::NoServer => Ending::NoServer,
        DialError::ConnectFailed => Ending::ConnectFailed,
        DialError::ClientFault(fault) => broken(Side::Client, fault),
    })
}

/// Tells the log what an attempt changed; that a single one failed is nobody's news.
fn say(pool: &str, attempt: &Attempt<'_>) {
    let server = &attempt.server.spec().label;
    match (attempt.failure, attempt.ejected_for) {
        (Some(failure), Some(back_off)) => {
            tracing::warn!(pool, %server, reason = failure.as_str(), ?back_off, "server is ejected");
        }
        (Some(failure), None) => tracing::debug!(pool, %server, reason = failure.as_str(), "cannot connect"),
        (None, _) if attempt.ended_ejection => tracing::info!(pool, %server, "server is back"),
        (None, _) => {}
    }
}

/// The PROXY header, where the pool's servers expect one.
fn told(client: &TcpStream, pool: &LivePool, hello: Option<&Hello>, entry: &Entry) -> Vec<u8> {
    let Some(version) = pool.plan().dial.connect.proxy_protocol else {
        return Vec::new();
    };
    let Ok(local) = client.local_addr() else {
        return Vec::new();
    }; // it is gone; the relay will say so
    let info = ClientInfo {
        client: entry.facts().client,
        local: ListenAddr::new(local),
        authority: hello.and_then(Hello::server_name).map(ServerName::as_str),
        alpn: hello.and_then(|hello| hello.alpn.iter().next()),
    };
    header(version, &info)
}

/// Moves the bytes until the end. The place is held until the server's socket is closed.
fn carry(admitted: Admitted) -> impl Future<Output = ()> {
    let Admitted {
        ends,
        connected,
        first,
        limits,
        mut entry,
    } = admitted;
    async move {
        let cut = entry.record().until_cut();
        let closed = relay(&ends.client, &ends.server, first, limits, entry.traffic(), cut).await;
        entry.flowed(&ends);
        let finished = connected.finished(&ends, closed, &entry);
        if closed.is_abrupt() {
            ends.reset_when_closed();
        }
        drop(ends);
        connected.over(&finished);
        let ending = match closed {
            Closed::Finished(Side::Client) => Ending::ClientClosed,
            Closed::Finished(Side::Server) => Ending::ServerClosed,
            Closed::Broke(side, fault) => broken(side, fault),
            Closed::Idle(_) => Ending::IdleTimeout,
            Closed::HalfClosed(_) => Ending::HalfCloseTimeout,
            Closed::Cut => entry.record().until_cut().await, // it has been told already
        };
        entry.close(ending);
    }
}

fn broken(side: Side, fault: Fault) -> Ending {
    match (side, fault) {
        (Side::Client, Fault::Reset) => Ending::ClientReset,
        (Side::Client, Fault::Lost) => Ending::ClientLost,
        (Side::Server, Fault::Reset) => Ending::ServerReset,
        (Side::Server, Fault::Lost) => Ending::ServerLost,
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::ErrorKind;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::account::Metrics;
    use crate::account::access_log::{self, AccessLogWriter, AccessTarget, LogFormat};
    use crate::capacity::{Capacity, ConnectionLimits};
    use crate::listen::{Bound, Listener};
    use crate::live::Live;
    use crate::sniff::HelloMemory;
    use crate::socket::SocketOptions;

    /// A listener before a server of ours, with all that a worker has to serve its clients.
    struct House {
        listener: Listener,
        address: std::net::SocketAddr,
        server: TcpListener,
        front: Arc<Front>,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
        written: AccessLogWriter,
    }

    impl House {
        async fn new(log: AccessTarget) -> Self {
            let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let text = format!(
                "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
                 [pools.p]\nservers = [\"{}\"]\nhealth = {{ check = \"off\" }}",
                server.local_addr().unwrap()
            );
            let plan = crate::config::read("test.toml", &text).ok().unwrap().plan;
            let in_force = Live::new(plan, Vec::new()).in_force();
            let plan = Arc::clone(&in_force.plan.listeners[0]);
            let metrics = Arc::new(Metrics::new());
            let series = metrics.listener(&plan.name, || ConnectionLimits::new(None, Capacity::new(None)));
            let (log, written) = access_log::start(&log, LogFormat::Json, metrics.lines_dropped()).unwrap();
            let options = SocketOptions {
                keepalive: None,
                user_timeout: None,
            };
            let bound = Bound::new(plan.bind[0], &options).unwrap();
            Self {
                address: bound.address().socket(),
                listener: Listener::new(bound.listen(1, 16).unwrap().remove(0)).unwrap(),
                server,
                front: Arc::new(Front::new(
                    plan,
                    in_force.pools.clone(),
                    series,
                    HelloMemory::new(1 << 20),
                )),
                ledger: Arc::new(Ledger::new(Arc::clone(&metrics), log)),
                metrics,
                written,
            }
        }

        /// A client, its session, and the server's end of it once that is there.
        async fn session(&mut self) -> (TcpStream, impl Future<Output = ()> + use<>) {
            let client = TcpStream::connect(self.address).await.unwrap();
            let places = self.front.series.places();
            let accepted = self.listener.accept(places, |_| {}).await;
            (client, serve(accepted, Arc::clone(&self.front), &self.ledger))
        }
    }

    async fn is_reset(socket: &mut TcpStream) -> bool {
        let read = socket.read(&mut [0]).await;
        read.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    #[tokio::test]
    async fn a_session_that_panics_gives_all_back_and_tells_and_nobody_else_notices() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut house = House::new(AccessTarget::File(path.clone())).await;
        let (mut other, session) = house.session().await;
        let others = tokio::spawn(session);
        let (mut others_server, _) = house.server.accept().await.unwrap();
        let (mut client, session) = house.session().await;
        let (strike, struck) = tokio::sync::oneshot::channel::<()>();
        // Not in one of its stages, but beside them: what unwinds is the same.
        let panics = tokio::spawn(async move {
            let (mut session, mut struck) = (pin!(session), pin!(struck));
            poll_fn(|cx| {
                assert!(struck.as_mut().poll(cx).is_pending(), "a fault of ours");
                session.as_mut().poll(cx)
            })
            .await;
        });
        let (mut server, _) = house.server.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        server.read_exact(&mut [0; 4]).await.unwrap();
        assert_eq!(house.front.series.places().in_use(), 2);
        strike.send(()).unwrap();
        assert!(panics.await.unwrap_err().is_panic());
        assert!(is_reset(&mut client).await && is_reset(&mut server).await);
        assert_eq!(house.front.series.places().in_use(), 1);
        let text = house.metrics.render([&***house.front.pools.first().unwrap()]);
        for line in [
            "acequia_sessions_active{listener=\"l\"} 1\n".to_owned(),
            format!(
                "acequia_server_sessions_active{{pool=\"p\",server=\"{}\"}} 1\n",
                house.server.local_addr().unwrap()
            ),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
        let counted = text.lines().find(|line| line.contains("ending=\"internal\""));
        assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{text}");
        other.write_all(b"ping").await.unwrap();
        others_server.read_exact(&mut [0; 4]).await.unwrap();
        drop((other, others_server));
        others.await.unwrap();
        let House { ledger, written, .. } = house;
        drop(ledger);
        assert!(written.finish());
        let log = std::fs::read_to_string(path).unwrap();
        let ends = [
            "\"bytes_up\":4,\"bytes_down\":0,\"ending\":\"internal\"",
            "\"ending\":\"client_closed\"",
        ];
        assert!(
            log.lines().count() == 2 && ends.iter().all(|end| log.contains(end)),
            "{log}"
        );
    }

    #[test]
    fn what_is_kept_of_the_protocols_is_bounded() {
        let names = |names: &[&str]| ProtocolList::of(names);
        assert_eq!(printable(&ProtocolList::default()), None);
        assert_eq!(printable(&names(&["h2", "http/1.1"])).as_deref(), Some("h2,http/1.1"));
        let many = ProtocolList::of(vec![[0; 255]; 255]);
        assert_eq!(printable(&many).as_deref(), Some("…"));
        let mixed = printable(&names(&["h2", &"x".repeat(255), "h3"]));
        assert_eq!(mixed.as_deref(), Some("h2,…"));
    }
}
