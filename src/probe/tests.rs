use super::*;
use crate::pool::{Allotment, Server};

/// The only pool of a configuration, with these lines in it.
pub(super) fn pool(lines: &str) -> Arc<PoolPlan> {
    let text = format!("[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n{lines}");
    let loaded = crate::config::read("test.toml", &text);
    let plan = loaded.unwrap_or_else(|report| panic!("{report}")).plan;
    Arc::clone(&plan.pools[0])
}

fn checks() -> Arc<Checks> {
    Arc::new(Checks::new(4, Arc::new(Metrics::new()), Arc::default()))
}

#[tokio::test]
async fn a_prober_that_ends_leaves_nothing_behind() {
    let (checks, pool) = (checks(), pool(r#"servers = ["127.0.0.1:1", "127.0.0.1:2"]"#));
    let mut probers = Probers::default();
    for _ in 0..100 {
        let anew = |server: &Arc<Server>| Arc::new(Server::new(server.spec().clone(), Allotment::default(), true));
        pool.pool
            .replace_servers(pool.pool.servers().iter().map(anew).collect());
        checks.run_probers(&pool, &mut probers);
        tokio::task::yield_now().await;
    }
    assert_eq!(probers.running.len(), 2);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert_eq!(alive(), 2);
    drop(probers);
    tokio::task::yield_now().await;
    assert_eq!(alive(), 0);
}
