//! The configuration that the demo runs.

use std::path::Path;

use toml::Value;

use super::{Cast, DRAIN_SECONDS, Gates};

/// Its text. The access log and the Unix socket are in that folder.
pub(super) fn text(gates: &Gates, cast: &Cast, folder: &Path) -> String {
    let Gates { admin, tls, tcp } = gates;
    let ([a, b, c], [one, two, three]) = (cast.tls, cast.echo);
    // Quoted as TOML wants it.
    let [access, socket] =
        ["access.log", "admin.sock"].map(|name| Value::from(folder.join(name).display().to_string()));
    format!(
        r#"# What `acequia demo` runs; its servers end with it.

[runtime]
drain_timeout = "{DRAIN_SECONDS}s"

[admin]
bind = "{admin}"
socket = {socket}

[log]
format = "text"
level  = "warn"
access = {access}

# TLS, by the server name that the client asks for.
[listeners.tls]
bind = "{tls}"
pool = "c"                            # what no route takes

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

# TCP of any kind: to the server with the fewest sessions.
[listeners.tcp]
bind = "{tcp}"
pool = "echo"

[pools]
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
"#
    )
}
