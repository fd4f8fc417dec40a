//! The configuration that the demo runs, and the addresses of its listeners.

use std::net::SocketAddr;
use std::path::Path;

use toml::Value;

use super::servers::{ANY_PORT, ServerAddresses};
use crate::app::Running;

/// The drain timeout: the time for open sessions to finish after the first Ctrl-C.
pub(super) const DRAIN_SECONDS: u32 = 10;

/// The addresses of the admin port and the listeners.
pub(super) struct ListenerAddresses {
    pub(super) admin: SocketAddr,
    pub(super) tls: SocketAddr,
    pub(super) tcp: SocketAddr,
    pub(super) edge: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) app: SocketAddr,
}

impl ListenerAddresses {
    /// The addresses to bind.
    pub(super) const REQUESTED: Self = Self {
        admin: ANY_PORT,
        tls: ANY_PORT,
        tcp: ANY_PORT,
        edge: ANY_PORT,
        http: ANY_PORT,
        app: ANY_PORT,
    };

    /// The addresses that are bound.
    pub(super) fn new(running: &Running) -> Self {
        let in_force = running.live.in_force();
        let first_address = |name: &str| {
            let found = in_force.listeners().find(|(listener, _)| *listener.name == *name);
            found.map_or(ANY_PORT, |(_, addresses)| addresses[0].socket().unwrap_or(ANY_PORT))
        };
        Self {
            admin: running.admin.and_then(|admin| admin.socket()).unwrap_or(ANY_PORT),
            tls: first_address("tls"),
            tcp: first_address("tcp"),
            edge: first_address("edge"),
            http: first_address("http"),
            app: first_address("app"),
        }
    }
}

/// The file of the balancer's own certificate, with its key.
pub(super) const CERTIFICATE_FILE: &str = "edge.pem";

/// The text of the configuration. `directory` is for the access log, the Unix socket and the certificate.
pub(super) fn text(listeners: &ListenerAddresses, servers: &ServerAddresses, directory: &Path) -> String {
    let ListenerAddresses {
        admin, tls, tcp, app, ..
    } = listeners;
    // Quoted as TOML strings.
    let [access, socket, certificate] = ["access.log", "admin.sock", CERTIFICATE_FILE]
        .map(|name| Value::from(directory.join(name).display().to_string()));
    format!(
        r#"# The configuration of `acequia demo`. The servers run only as long as the demo.

[runtime]
drain_timeout = "{DRAIN_SECONDS}s"

[admin]
bind = "{admin}"
socket = {socket}

[log]
format = "text"
level  = "warn"
access = {access}

# TLS: by the server name that the client asks for.
[listeners.tls]
bind = "{tls}"
pool = "c"                            # clients that no route takes

  [[listeners.tls.routes]]
  sni  = "a.demo.test"
  pool = "a"

  [[listeners.tls.routes]]
  sni  = "*.b.demo.test"
  pool = "b"

  [[listeners.tls.routes]]
  name   = "closed"
  sni    = "closed.demo.test"
  refuse = true

# Any TCP: to the server with the fewest sessions.
[listeners.tcp]
bind = "{tcp}"
pool = "echo"

# Any TCP: to servers that are started when clients come, and stopped when they are gone.
[listeners.app]
bind = "{app}"
pool = "app"

{edge}

{pools}"#,
        edge = edge_listeners(listeners, &certificate),
        pools = pools(servers)
    )
}

/// The sections of the listeners that terminate TLS or redirect.
fn edge_listeners(listeners: &ListenerAddresses, certificate: &Value) -> String {
    let ListenerAddresses { edge, http, .. } = listeners;
    format!(
        r#"# TLS that ends here: the servers get the plaintext.
[listeners.edge]
bind = "{edge}"
pool = "echo"
tls.certificates = [{{ cert = {certificate} }}]   # its key is in the same file

# HTTP: every request is redirected to https.
[listeners.http]
bind = "{http}"
redirect = {{ to = "tls" }}"#
    )
}

/// The sections of the pools.
fn pools(servers: &ServerAddresses) -> String {
    let ([a, b, c], [one, two, three]) = (servers.tls, servers.echo);
    format!(
        r#"[pools]
a.servers = [{{ address = "{a}", name = "a" }}]
b.servers = [{{ address = "{b}", name = "b" }}]
c.servers = [{{ address = "{c}", name = "c" }}]

[pools.echo]
balance = "least-conn"
servers = [
  {{ address = "{one}", name = "one" }},
  {{ address = "{two}", name = "two" }},
  {{ address = "{three}", name = "three" }},
]

[pools.app.scale]
min = 0                               # without clients the pool sleeps: no server runs
max = 4
sessions_per_server = 4
up_after = "1s"
down_after = "4s"
cooldown = "1s"
drain = "5s"
command = ["/proc/self/exe", "demo-server", "{{port}}"]
"#
    )
}
