//! A list of very many servers costs CPU time in proportion to its length, not to the square of its length.

use rustix::time::{ClockId, clock_gettime};

use super::*;

/// The CPU time that this thread has used.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

/// The CPU time that the pool needs to take a list of `count` servers, another list of as many, and a list in which one
/// server has changed, and then to record a check of each server.
fn cost_of(count: usize) -> Duration {
    let live = Live::new(plan_of("discover = { file = \"/run/servers.json\" }"), Vec::new());
    let list = |port: usize, last_port: usize| {
        let ports = (1..count).map(|_| port).chain([last_port]);
        let addresses = ports
            .enumerate()
            .map(|(n, port)| format!("10.0.{}.{}:{port}", n / 250, n % 250));
        let entries = listed_entries(addresses.map(ListedServer::at), MemberConfig::default());
        live.set_servers("p", Lister::Source, entries.unwrap()).unwrap()
    };
    let began = cpu_time();
    for (port, last_port, added, removed) in [(1, 1, count, 0), (2, 2, count, count), (2, 3, 1, 1)] {
        assert_eq!(
            list(port, last_port),
            ListChange {
                added,
                removed,
                kept: 0 // no removed server has to stay: the new ones can be used at once
            }
        );
    }
    let pool = Arc::clone(live.in_force().pool("p").unwrap());
    for server in pool.servers().iter() {
        pool.record_check(server, Ok(ServerFacts::default()));
        assert_eq!(server.check_state(), CheckState::Up);
    }
    cpu_time() - began
}

#[test]
fn ten_times_the_servers_cost_less_than_forty_times_as_much() {
    let _ = cost_of(100); // pays for what is set up only once
    let (few, many) = (cost_of(1_000), cost_of(10_000));
    // A linear cost is about 10 times as high, a quadratic one 100 times.
    assert!(many < 40 * few, "{many:?}, and a tenth of the servers {few:?}");
}
