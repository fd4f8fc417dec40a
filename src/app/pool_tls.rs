//! TLS to the servers of pools. Its files are read before a plan is put in force.

use std::sync::Arc;

use super::Failure;
use crate::account::Metrics;
use crate::live::{InForce, TlsByPool};
use crate::plan::Plan;
use crate::reload::reload_pool_tls;
use crate::tls::PoolTls;

/// Reads the files of every pool with TLS. `before`: what a reload replaces; `None`: this is no reload. A pool whose
/// TLS is configured as in `before` keeps its [`PoolTls`]: its files are read only if one of them has changed, and a
/// file that cannot be used is only logged. For each pool whose TLS is new or configured differently, the first file
/// that cannot be used is added to `failures`.
pub(super) fn load_pool_tls(
    plan: &Plan,
    before: Option<(&InForce, &Metrics)>,
    failures: &mut Vec<Failure>,
) -> TlsByPool {
    let mut loaded = TlsByPool::new();
    for pool in &plan.pools {
        let Some(tls_plan) = &pool.tls else { continue };
        let in_force = before.and_then(|(before, metrics)| Some((before.tls.pools.get(&pool.name)?, metrics)));
        let tls = match in_force.filter(|(tls, _)| tls.plan() == tls_plan) {
            Some((tls, metrics)) => {
                reload_pool_tls(&pool.name, tls, metrics);
                Ok(Arc::clone(tls))
            }
            None => PoolTls::load(tls_plan.clone()).map(Arc::new),
        };
        let section = format!("pools.{}.tls", pool.name);
        let tls = tls.map_err(|cause| failures.push(Failure::Tls { section, cause }));
        loaded.extend(tls.ok().map(|tls| (Arc::clone(&pool.name), tls)));
    }
    loaded
}

/// Warnings about the certificates that we show to servers, if they can be used but are probably wrong.
pub(super) fn warnings(tls: &TlsByPool) -> Vec<String> {
    let warnings_of_pool = |(pool, tls): (&Arc<str>, &Arc<PoolTls>)| -> Vec<String> {
        let identity = tls.identity();
        let of_identity = identity.iter().flat_map(|own| own.warnings.iter().cloned());
        let mut found: Vec<_> = of_identity.collect();
        found.extend(identity.iter().filter(|own| !own.is_for_clients).map(|own| {
            format!(
                "{}: the certificate is not for clients (extendedKeyUsage): servers refuse it",
                own.path().display()
            )
        }));
        found.iter().map(|what| format!("pools.{pool}.tls: {what}")).collect()
    };
    let mut warnings: Vec<_> = tls.iter().flat_map(warnings_of_pool).collect();
    warnings.sort();
    warnings
}
