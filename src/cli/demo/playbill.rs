//! What is told at the beginning: what plays where, and what to try.

use std::path::Path;

use super::{Cast, Gates};

/// The text; its commands are whole and can be copied as they stand.
pub(super) fn text(gates: &Gates, cast: &Cast, folder: &Path) -> String {
    let Gates { admin, tls, tcp } = gates;
    let ([a, b, c], [one, two, three]) = (cast.tls, cast.echo);
    let (tcp_host, tcp_port) = (tcp.ip(), tcp.port());
    let folder = folder.display();
    let (tls_column, tcp_column) = (tls.to_string(), tcp.to_string());
    format!(
        "\
acequia balances six servers of its own on this machine. Ctrl-C ends it.

  listener             a client that ...              goes to server
  tls {tls_column:<15}  asks for a.demo.test           a      {a}
                       asks for *.b.demo.test         b      {b}
                       asks for any other name        c      {c}
                       asks for closed.demo.test      none, it is refused
  tcp {tcp_column:<15}  comes; least-conn chooses      one    {one}
                                                      two    {two}
                                                      three  {three}

Try, in another terminal:

  # TLS by name; the balancer holds no key
  curl -k --connect-to ::{tls} https://a.demo.test
  openssl s_client -brief -connect {tls} -servername x.b.demo.test
  # a name that is refused, with a TLS alert that says why
  curl -k --connect-to ::{tls} https://closed.demo.test
  # TCP; each further terminal gets another server
  nc {tcp_host} {tcp_port}
  # what has happened: metrics, a line for each session, and what it runs
  curl -s http://{admin}/metrics
  tail -f {folder}/access.log
  cat {folder}/demo.toml
  # who is here, how the servers are, and one of them taken out
  acequia sessions -c {folder}/demo.toml
  acequia servers -c {folder}/demo.toml
  acequia server drain echo/one -c {folder}/demo.toml

",
    )
}
