//! Compares the certificates of servers with the names of the routes that pass TLS on to them.

use std::collections::HashSet;
use std::sync::Arc;

use rustls::pki_types;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::super::Finding;
use super::PHASE_TIME_MAX;
use crate::dial::connect_for_check;
use crate::live::{LivePool, LivePools};
use crate::name::{NamePattern, Sni};
use crate::plan::{ListenerPlan, PoolId, Protocol};
use crate::pool::{Member, ServerId};
use crate::route::{Route, Target, TlsMode};
use crate::sniff::postgres::SSL_REQUEST;
use crate::tls::{certificate_names, unverified_config};

/// The most handshakes: a configuration may have thousands of routes.
const HANDSHAKES_MAX: usize = 256;

/// What handshakes need, and their limits.
struct Handshakes {
    /// How many more may be made.
    left: usize,
    deadline: Instant,
    tls: TlsConnector,
    /// Servers with which a handshake has failed: they are not asked again.
    failed: HashSet<ServerId>,
    /// Whether a handshake was left out because of the limits.
    is_limit_reached: bool,
}

/// Compares the certificates for all listeners.
pub(super) async fn compare_all(listeners: &[Arc<ListenerPlan>], pools: &LivePools, found: &mut Vec<Finding>) {
    let mut handshakes = Handshakes {
        left: HANDSHAKES_MAX,
        deadline: Instant::now() + PHASE_TIME_MAX,
        tls: unverified_config().into(),
        failed: HashSet::new(),
        is_limit_reached: false,
    };
    for listener in listeners {
        compare(listener, |id| &*pools[id], &mut handshakes, found).await;
    }
    if handshakes.is_limit_reached {
        let asked = HANDSHAKES_MAX - handshakes.left;
        let message = format!("only {asked} certificates were requested: the others were not compared");
        found.push(Finding::warning(message));
    }
}

impl Handshakes {
    /// Whether the limits allow another handshake. Updates `is_limit_reached`.
    fn may_continue(&mut self) -> bool {
        self.is_limit_reached |= self.left == 0 || Instant::now() >= self.deadline;
        !self.is_limit_reached
    }

    /// Asks a server for its certificate for `name`. Returns the host names in it; `None`: this handshake, or an
    /// earlier one with the server, failed.
    async fn certificate_of(
        &mut self,
        member: &Member,
        pool: &LivePool,
        protocol: Protocol,
        name: &str,
    ) -> Option<Vec<NamePattern>> {
        if self.failed.contains(&member.id()) {
            return None;
        }
        self.left -= 1;
        let handshake = handshake(member, pool, protocol, name, &self.tls);
        let limited = timeout(pool.plan().dial.connect.timeout, handshake);
        let names = timeout_at(self.deadline, limited)
            .await
            .ok()
            .and_then(Result::ok)
            .flatten();
        if names.is_none() {
            self.failed.insert(member.id());
        }
        names
    }
}

/// Compares the names of each route that passes TLS on with the certificates of the route's servers.
async fn compare<'p>(
    listener: &ListenerPlan,
    pools: impl Fn(PoolId) -> &'p LivePool,
    handshakes: &mut Handshakes,
    found: &mut Vec<Finding>,
) {
    let routes = listener.routes.routes();
    for route in routes.iter().filter(|route| route.tls == TlsMode::Pass) {
        let Target::Pool(id) = &route.to else { continue };
        for name in route.sni.iter().filter_map(example_of) {
            let Some(sni) = sni_of(&name) else { continue };
            for member in pools(*id).servers().iter() {
                if !handshakes.may_continue() {
                    return;
                }
                let asking = handshakes.certificate_of(member, pools(*id), listener.protocol, &name);
                let Some(patterns) = asking.await else { continue };
                let is_covered = |name: &Sni| patterns.iter().any(|pattern| covers(pattern, name));
                let server = format!("{}/{}", pools(*id).name(), member.spec().label);
                if !is_covered(&sni) {
                    let message = format!("route {}: the certificate of {server} is not for {name}", route.name);
                    found.push(Finding::warning(message));
                } else if let Some(other) = routes.iter().find(|other| may_be_coalesced(other, route, is_covered)) {
                    let message = format!(
                        "route {}: the certificate of {server} is also for a name of route {}: browsers may send requests \
                         for that name over HTTP/2 connections of route {}",
                        route.name, other.name, route.name
                    );
                    if found.iter().all(|known| known.message != message) {
                        found.push(Finding::warning(message));
                    }
                }
            }
        }
    }
}

/// Whether browsers may send requests for `other` over connections of `route`: the certificate of `route` covers a name
/// that `other` has without `*`, and the two routes have different targets.
fn may_be_coalesced(other: &Route<PoolId>, route: &Route<PoolId>, is_covered: impl Fn(&Sni) -> bool) -> bool {
    let mut names = other.sni.iter().filter_map(|pattern| match pattern {
        NamePattern::Exact(name) => sni_of(name.as_str()),
        _ => None,
    });
    other.to != route.to && names.any(|name| is_covered(&name))
}

/// Whether `pattern`, a name in a certificate, covers the host `name`. `*` stands for one label (RFC 9525, section
/// 6.3).
fn covers(pattern: &NamePattern, name: &Sni) -> bool {
    let labels = name.valid().map_or(0, |name| name.labels());
    match pattern {
        NamePattern::Suffix(suffix) if labels != suffix.labels() + 1 => false,
        pattern => pattern.rank(name).is_some(),
    }
}

fn sni_of(name: &str) -> Option<Sni> {
    Sni::from_config(name).ok()
}

/// A name that the pattern matches; `None`: the pattern matches every name, so no example is better than another.
fn example_of(pattern: &NamePattern) -> Option<String> {
    match pattern {
        NamePattern::Any => None,
        pattern => Some(pattern.to_string().replacen('*', "acequia-check", 1)),
    }
}

/// Makes the handshake of a client whose SNI is `name`; with PostgreSQL, first requests TLS. Returns the host names in
/// the server's certificate; `None`: the handshake failed.
async fn handshake(
    member: &Member,
    pool: &LivePool,
    protocol: Protocol,
    name: &str,
    tls: &TlsConnector,
) -> Option<Vec<NamePattern>> {
    let server_name = pki_types::ServerName::try_from(name.to_owned()).ok()?;
    let options = &pool.plan().dial.connect;
    let mut socket = connect_for_check(&member.spec().address, options).await.ok()?;
    if matches!(protocol, Protocol::Postgres { .. }) {
        socket.write_all(&SSL_REQUEST).await.ok()?;
        socket.read_u8().await.ok().filter(|answer| *answer == b'S')?;
    }
    let stream = tls.connect(server_name, socket).await.ok()?;
    let (_, session) = stream.get_ref();
    Some(certificate_names(session.peer_certificates()?.first()?))
}
