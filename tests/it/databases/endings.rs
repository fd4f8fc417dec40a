//! Sessions of ordinary clients over TLS end as closed, although the last bytes of the server meet a client that is gone.

use crate::support::database::{Postgres, psql};
use crate::support::process::must;
use crate::support::proxy::Proxy;

const SESSIONS: usize = 40;

#[test]
fn psql_sessions_over_tls_end_as_closed_by_the_client() {
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
    let others: Vec<_> = lines.iter().filter(|line| line["ending"] != "client_closed").collect();
    assert!(others.is_empty(), "{} of {SESSIONS}: {:#?}", others.len(), others[0]);
}
