//! psql over TLS is often gone before the server's last bytes arrive. Such a session is logged as closed, not as
//! broken.

use crate::support::database::{Postgres, psql};
use crate::support::process::must;
use crate::support::proxy::Proxy;

const SESSIONS: usize = 40;

#[test]
fn psql_sessions_over_tls_are_logged_as_closed_by_a_side() {
    let server = Postgres::start_with_tls();
    let proxy = Proxy::start(&format!(
        "[listeners.db]\nbind = \"127.0.0.1:0\"\npool = \"db\"\n[pools.db]\nservers = [\"{}\"]",
        server.address()
    ));
    for _ in 0..SESSIONS {
        let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let output = must(psql(proxy.at("db"), query).env("PGSSLMODE", "require"));
        assert_eq!(output, "t\n", "expected TLS");
    }
    let lines = proxy.access_lines(SESSIONS);
    // psql sends Terminate and closes at once. The server closes when it has read Terminate, and sometimes the FIN of
    // the server arrives first.
    let is_closed = |ending: &str| ending == "client_closed" || ending == "server_closed";
    let not_closed: Vec<_> = lines
        .iter()
        .filter(|line| !line["ending"].as_str().is_some_and(is_closed))
        .collect();
    let count = not_closed.len();
    assert!(count == 0, "{count} of {SESSIONS}: {:#?}", not_closed[0]);
}
