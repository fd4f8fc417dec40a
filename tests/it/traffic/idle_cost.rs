//! Idle sessions cost almost no CPU time and memory, and leave nothing behind.

use std::time::Duration;

use crate::over_each_path;
use crate::support::client::{Client, served_client};
use crate::support::counts::wait_for_active_sessions;
use crate::support::limits::raise_descriptor_limit;
use crate::support::path::Path;
use crate::support::server::{ManualServer, Server};
use crate::support::usage::{anonymous_bytes, cpu_time_over, descriptors, descriptors_fall_to};

over_each_path! {
    five_hundred_idle_sessions_cost_almost_no_cpu_and_memory,
    half_closed_and_blocked_sessions_cost_almost_no_cpu,
}

/// The limit of memory per idle session, in bytes. For plain sessions, it is below the smallest read of the relay
/// (16 KiB), so that a session that keeps a read buffer fails the test. The benchmarks measure the memory in a release
/// build.
const fn session_bytes_max(path: Path) -> u64 {
    match path {
        Path::Plain => 8 << 10,
        _ => 16 << 10,
    }
}

fn five_hundred_idle_sessions_cost_almost_no_cpu_and_memory(path: Path) {
    const SESSIONS: usize = 500;
    raise_descriptor_limit();
    let server = Server::echo();
    let timeouts = "idle_timeout = \"1h\"\nhalf_close_timeout = \"1h\"";
    let proxy = path.open(server.address, timeouts);
    drop(served_client(proxy.at("plain")));
    wait_for_active_sessions(&proxy, 0);
    let (descriptors_before, bytes_before) = (descriptors(&proxy), anonymous_bytes(&proxy));
    let mut clients: Vec<Client> = (0..SESSIONS).map(|_| served_client(proxy.at("plain"))).collect();
    wait_for_active_sessions(&proxy, SESSIONS);
    // Two descriptors per session, and no pipe. Our own connection to the admin port may still be about to close.
    descriptors_fall_to(&proxy, descriptors_before + 2 * SESSIONS);
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time for idle sessions, used {used:?}"
    );
    let each = anonymous_bytes(&proxy).saturating_sub(bytes_before) / SESSIONS as u64;
    assert!(
        each < session_bytes_max(path),
        "expected less than {} bytes per session, got {each}",
        session_bytes_max(path)
    );
    // Half of the clients half-close before they close.
    for client in clients.iter_mut().step_by(2) {
        client.finish();
    }
    drop(clients);
    wait_for_active_sessions(&proxy, 0);
    descriptors_fall_to(&proxy, descriptors_before);
    let used = cpu_time_over(&proxy, Duration::from_secs(1));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time afterwards, used {used:?}"
    );
}

fn half_closed_and_blocked_sessions_cost_almost_no_cpu(path: Path) {
    // Four are half-closed, two are blocked in one direction, and two in both.
    const SESSIONS: usize = 8;
    let manual = ManualServer::new();
    let proxy = path.open(manual.server.address, "");
    let mut held = Vec::new();
    for number in 0..SESSIONS {
        let mut client = Client::connect(proxy.at("plain"));
        let mut server = manual.session();
        if number % 2 == 0 {
            client.finish();
        } else {
            crate::support::stream::fill(&mut client.0);
        }
        if number % 4 == 3 {
            crate::support::stream::fill(&mut server);
        }
        held.push((client, server));
    }
    wait_for_active_sessions(&proxy, SESSIONS);
    let used = cpu_time_over(&proxy, Duration::from_secs(2));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time for blocked sessions, used {used:?}"
    );
}
