//! TLS within TLS: the client's TLS, passed on by a listener to a pool that encrypts it again.

use super::pools::Pools;
use super::route::ListenerKind;
use super::{Problems, Section};
use crate::config::report::Position;
use crate::plan::{PoolId, Protocol};
use crate::route::{Route, RouteTable, TlsMode};
use crate::text::toml_key;

/// Rejects a listener that sends clients to a pool with TLS although the clients use TLS already, or begin it within
/// their protocol. `section`: the keys of the listener; `positions`: where the routes are.
pub(super) fn reject(
    (listener, section): (&str, &Section<'_>),
    ListenerKind {
        protocol, terminates, ..
    }: ListenerKind,
    (table, positions): (&RouteTable<PoolId>, &[&Position]),
    pools: &Pools<'_>,
    problems: &mut Problems<'_>,
) {
    if let Protocol::Postgres { .. } | Protocol::Mysql = protocol {
        let of_routes = table.routes().iter().zip(positions).filter_map(|(route, position)| {
            let pool = encrypting_pool(*route.to.pool()?, pools)?;
            Some((pool, *position))
        });
        let default = table.default().and_then(|id| encrypting_pool(*id, pools));
        let of_default = default.zip(section.get("pool").map(|node| &node.position));
        if let Some((pool, position)) = of_routes.chain(of_default).next() {
            let message =
                format!("pool `{pool}` has a [tls] table, and clients of this `protocol` begin TLS on their own");
            let reason = if terminates {
                "the servers get the plaintext of the client's TLS"
            } else {
                "the client's TLS reaches the server"
            };
            problems.error(
                position,
                message,
                format!("remove [pools.{}.tls]: {reason}", toml_key(pool)),
            );
        }
        return;
    }
    // A route with `sni` or `alpn` takes only TLS. A listener that terminates TLS expects it for its other routes, too.
    let passes_tls = |route: &Route<PoolId>| {
        route.tls == TlsMode::Pass && (terminates || !route.sni.is_empty() || !route.alpn.is_empty())
    };
    for (route, position) in table.routes().iter().zip(positions) {
        let Some(id) = route.to.pool().filter(|_| passes_tls(route)) else {
            continue;
        };
        let Some(pool) = encrypting_pool(*id, pools) else {
            continue;
        };
        let (name, target) = (&route.name, &*pools.in_order[id.0].name);
        let message = if target == pool {
            format!("route `{name}` passes TLS on to pool `{pool}`, whose [tls] table encrypts it again")
        } else {
            format!(
                "route `{name}` passes TLS on to pool `{target}`, and [tls] of its fallback `{pool}` encrypts it again"
            )
        };
        let (listener, pool) = (toml_key(listener), toml_key(pool));
        let hint = if terminates {
            format!("remove tls = \"pass\" of the route, or [pools.{pool}.tls]")
        } else {
            format!("add [listeners.{listener}.tls] with `certificates`, or remove [pools.{pool}.tls]")
        };
        problems.error(position, message, hint);
    }
}

/// The name of the pool that encrypts the sessions of pool `id`: that pool itself, or one of its fallbacks.
fn encrypting_pool<'a>(id: PoolId, pools: &'a Pools<'_>) -> Option<&'a str> {
    let pool = pools.serving(id).find(|pool| pool.tls.is_some())?;
    Some(&pool.name)
}
