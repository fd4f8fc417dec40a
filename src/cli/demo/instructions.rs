//! The text at the start: the listeners and servers, and commands to try.

use std::path::Path;

use super::configuration::ListenerAddresses;
use super::servers::ServerAddresses;

/// The text. Each command works as printed.
pub(super) fn text(listeners: &ListenerAddresses, servers: &ServerAddresses, directory: &Path) -> String {
    let admin = listeners.admin;
    let (table, commands) = (table(listeners, servers), commands(listeners, directory));
    let directory = directory.display();
    format!(
        "\
acequia balances six servers of its own on this machine. Ctrl-C ends it.

  in a browser         http://{admin}/
  in a terminal        acequia top --socket {directory}/admin.sock

{table}
Commands to try in another terminal:

{commands}
",
    )
}

/// The purposes of the listeners.
fn table(listeners: &ListenerAddresses, servers: &ServerAddresses) -> String {
    let ListenerAddresses {
        tls,
        tcp,
        edge,
        http,
        app,
        ..
    } = listeners;
    let ([a, b, c], [one, two, three]) = (servers.tls, servers.echo);
    let [tls, tcp, edge, http, app] = [tls, tcp, edge, http, app].map(ToString::to_string);
    format!(
        "  \
  listener             a client that ...              goes to server
  tls {tls:<15}  asks for a.demo.test           a      {a}
                       asks for *.b.demo.test         b      {b}
                       asks for any other name        c      {c}
                       asks for closed.demo.test      none: refused
  tcp {tcp:<15}  connects (policy least-conn)   one    {one}
                                                      two    {two}
                                                      three  {three}
  edge {edge:<15} speaks TLS, which ends here    one, two or three
  http {http:<15} speaks HTTP                    none: redirected to tls
  app {app:<15}  connects                       one started on demand
",
    )
}

fn commands(listeners: &ListenerAddresses, directory: &Path) -> String {
    let ListenerAddresses {
        admin,
        tls,
        tcp,
        edge,
        http,
        app,
    } = listeners;
    let directory = directory.display();
    let [(tcp_host, tcp_port), (http_host, http_port), (app_host, app_port)] =
        [tcp, http, app].map(|address| (address.ip(), address.port()));
    format!(
        "  \
  # TLS by server name; the balancer holds no key
  curl -k --connect-to ::{tls} https://a.demo.test
  openssl s_client -brief -connect {tls} -servername x.b.demo.test
  # a refused name: the client gets a TLS alert with the reason
  curl -k --connect-to ::{tls} https://closed.demo.test
  # TCP; the next terminal gets another server
  nc {tcp_host} {tcp_port}
  # the same servers over TLS; the balancer has the key
  openssl s_client -quiet -connect {edge} -servername edge.demo.test
  # a pool that sleeps: the first client starts a server, others start more
  nc {app_host} {app_port}
  # HTTP, which is redirected to https
  curl -kL --connect-to ::{http_host}: http://a.demo.test:{http_port}
  # the metrics, the access log, and the configuration
  curl -s http://{admin}/metrics
  tail -f {directory}/access.log
  cat {directory}/demo.toml
  # the sessions, the servers, and draining a server
  acequia sessions --socket {directory}/admin.sock
  acequia servers --socket {directory}/admin.sock
  acequia server drain echo/one --socket {directory}/admin.sock
",
    )
}
