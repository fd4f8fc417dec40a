//! Reading a configuration either succeeds or reports errors, and gives the same result every time.
#![no_main]

use acequia::config::report::{PROBLEMS_SHOWN_MAX, Report};
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
            assert_eq!(loaded.warnings.error_count(), 0);
            assert_eq!(rendered(&loaded.warnings), again.warnings.to_string());
            assert_eq!(content(&loaded), content(&again));
        }
        (Err(report), Err(again)) => {
            assert!(report.error_count() > 0, "expected at least one error");
            assert_eq!(rendered(&report), again.to_string());
        }
        (first, second) => panic!("{first:?}, then {second:?}"),
    }
});

/// The rendered report. Asserts that it shows all errors and all warnings, up to [`PROBLEMS_SHOWN_MAX`] of each, and no
/// control characters but line feeds.
fn rendered(report: &Report) -> String {
    let plain = report.to_string();
    let count = |word: &str| plain.lines().filter(|line| line.starts_with(word)).count();
    for (word, all) in [("error: ", report.error_count()), ("warning: ", report.warning_count())] {
        assert_eq!(count(word), all.min(PROBLEMS_SHOWN_MAX), "{plain}");
    }
    assert!(!plain.chars().any(|c| c.is_control() && c != '\n'), "{plain:?}");
    plain
}

/// Part of the content of a plan, as text, for comparison.
fn content(loaded: &Loaded) -> Vec<String> {
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
        let settings = (&pool.dial, &pool.health, &pool.severing, pool.resolve_interval);
        format!("{} {settings:?} {:?}", pool.name, pool.entries)
    });
    std::iter::once(process).chain(listeners).chain(pools).collect()
}
