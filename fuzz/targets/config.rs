//! The reader of configurations takes a text or says what is wrong with it, and does the same the next time.
#![no_main]

use acequia::config::report::Report;
use acequia::config::{Loaded, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let name = if text.trim_start().starts_with('{') {
        "a.json"
    } else {
        "a.toml"
    };
    match (read(name, text), read(name, text)) {
        (Ok(loaded), Ok(again)) => {
            assert_eq!(loaded.warnings.errors(), 0);
            assert_eq!(shown(&loaded.warnings), again.warnings.to_string());
            assert_eq!(told(&loaded), told(&again));
        }
        (Err(report), Err(again)) => {
            assert!(report.errors() > 0, "invalid without an error");
            assert_eq!(shown(&report), again.to_string());
        }
        (first, second) => panic!("{first:?}, then {second:?}"),
    }
});

/// Each thing is said, in lines that drive no terminal.
fn shown(report: &Report) -> String {
    let plain = report.to_string();
    let said = |word: &str| plain.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!(said("error: "), report.errors(), "{plain}");
    assert_eq!(said("warning: "), report.warnings(), "{plain}");
    assert!(!plain.chars().any(|c| c.is_control() && c != '\n'), "{plain:?}");
    plain
}

/// What was read. Servers are left out, for each is made with a number and a time of its own.
fn told(loaded: &Loaded) -> Vec<String> {
    let plan = &loaded.plan;
    let process = format!("{:?} {:?} {:?}", plan.runtime, plan.admin, plan.log);
    let listeners = plan.listeners.iter().map(|listener| {
        let routes: Vec<_> = listener
            .routes
            .routes()
            .iter()
            .map(|r| (&r.name, &r.sni, &r.alpn, &r.from))
            .collect();
        let sockets = (&listener.bind, listener.backlog, listener.socket);
        let limits = (listener.max_connections, listener.sniff, listener.relay);
        format!("{} {sockets:?} {limits:?} {routes:?}", listener.name)
    });
    let pools = plan.pools.iter().map(|pool| {
        let ways = (&pool.dial, &pool.health, &pool.severing, pool.resolve_interval);
        format!("{} {ways:?} {:?}", pool.pool.name(), pool.entries)
    });
    std::iter::once(process).chain(listeners).chain(pools).collect()
}
