//! TLS within TLS: the client's TLS, passed on by a listener to a pool that encrypts it again.

use super::Problems;
use super::pools::Pools;
use crate::config::report::Position;
use crate::plan::{PoolId, Protocol};
use crate::route::{Route, RouteTable, Target, TlsMode};

/// Rejects pools with TLS that a listener gives clients that use TLS already, or whose TLS begins within their protocol.
pub(super) fn reject(
    table: &RouteTable<PoolId>,
    (protocol, terminates): (Protocol, bool),
    pools: &Pools<'_>,
    position: &Position,
    problems: &mut Problems<'_>,
) {
    let with_tls = |id: PoolId| {
        let pool = pools.serving(id).find(|pool| pool.tls.is_some())?;
        Some(&pool.name)
    };
    if let Protocol::Postgres { .. } | Protocol::Mysql = protocol {
        if let Some(pool) = table.targets().copied().find_map(with_tls) {
            let message =
                format!("pool `{pool}` has a [tls] table, and clients of this `protocol` begin TLS on their own");
            let reason = if terminates {
                "the servers get what comes within TLS"
            } else {
                "the client's TLS reaches the server"
            };
            problems.error(position, message, format!("remove [pools.{pool}.tls]: {reason}"));
        }
        return;
    }
    // Clients without TLS may come to a route without names and protocols, unless the listener expects TLS.
    let passes_tls = |route: &&Route<PoolId>| {
        route.tls == TlsMode::Pass && (terminates || !route.sni.is_empty() || !route.alpn.is_empty())
    };
    for route in table.routes().iter().filter(passes_tls) {
        let Target::Pool(id) = route.to else { continue };
        let Some(pool) = with_tls(id) else { continue };
        let message = format!(
            "route `{}` passes TLS on to pool `{pool}`, whose [tls] table encrypts it again",
            route.name
        );
        let hint = if terminates {
            format!("remove tls = \"pass\" of the route, or [pools.{pool}.tls]")
        } else {
            format!("add [listeners.NAME.tls] with `certificates`, or remove [pools.{pool}.tls]")
        };
        problems.error(position, message, hint);
    }
}
