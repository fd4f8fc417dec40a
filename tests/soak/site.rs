//! The two configurations that alternate, and the servers behind acequia.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::support::process::Port;
use crate::support::server::{Hanging, hanging, refusing};

/// How the servers of a pool treat a connection before its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Waits for the order.
    Plain,
    /// Sends a greeting first.
    Greets,
    /// Speaks TLS, as the pool of this name.
    Tls(&'static str),
    /// Requires a PROXY header of version 2.
    Proxied,
}

/// The pools: name, number of servers, nature, whether the servers may die, and further lines of the configuration.
pub const POOLS: [(&str, usize, Nature, bool, &str); 9] = [
    ("plain", 3, Nature::Plain, true, CHECKED),
    ("hash", 3, Nature::Plain, true, HASH),
    ("greeting", 2, Nature::Greets, true, TURNS),
    ("shop", 3, Nature::Tls("shop"), true, CHECKED),
    ("web", 2, Nature::Tls("web"), true, CHECKED),
    ("mixed", 1, Nature::Plain, false, UNCHECKED),
    ("quiet", 1, Nature::Plain, false, CHECKED),
    ("proxied", 2, Nature::Proxied, true, PROXIED),
    (MOVING, 3, Nature::Plain, false, UNCHECKED),
];

const UNCHECKED: &str = "health.check = \"off\"";
/// With a timeout that even a busy machine meets: a server that is down has died.
const CHECKED: &str = "health = { interval = \"500ms\", timeout = \"5s\", fall = 2 }";
const HASH: &str = "balance = \"source-hash\"\non_down = \"close\"\nclose_over = \"1s\"\n\
                    health = { interval = \"200ms\", timeout = \"5s\" }";
const TURNS: &str = "balance = \"round-robin\"\nslow_start = \"2s\"\nhealth.interval = \"1s\"\nhealth.timeout = \"5s\"";
const PROXIED: &str =
    "balance = \"random-two\"\nproxy_protocol = \"v2\"\nhealth.interval = \"1s\"\nhealth.timeout = \"5s\"";

/// Server names routed to the pool `shop`, and to `web`.
pub const SHOP: [&str; 2] = ["shop.example.com", "deep.shop.example.com"];
pub const WEB: [&str; 2] = ["web.example.com", "anything.example.org"];

/// The pool whose servers differ between the configurations: their series are removed with them.
pub const MOVING: &str = "moving";

/// A server, with its reserved port.
pub struct Host {
    pub pool: &'static str,
    pub name: String,
    pub nature: Nature,
    pub is_mortal: bool,
    pub port: Port,
}

/// All servers behind acequia, and the folder of the access log.
pub struct Site {
    /// The folder of the access log.
    pub logs: TempDir,
    pub hosts: Vec<Host>,
    refusing: [Port; 2],
    hanging: Hanging,
}

impl Site {
    pub fn new() -> Self {
        let hosts = |(pool, count, nature, is_mortal, _): &(&'static str, usize, Nature, bool, &str)| {
            let (pool, nature, is_mortal) = (*pool, *nature, *is_mortal);
            (1..=*count).map(move |number| Host {
                pool,
                name: format!("{pool}-{number}"),
                nature,
                is_mortal,
                port: Port::keep(),
            })
        };
        Self {
            logs: tempfile::tempdir().expect("a temporary folder can be created"),
            hosts: POOLS.iter().flat_map(hosts).collect(),
            refusing: [refusing(), refusing()],
            hanging: hanging(),
        }
    }

    /// One of the two configurations.
    pub fn config(&self, turn: Turn) -> String {
        let mut text = format!(
            "[log]\naccess = \"{}/access.log\"\n{LISTENERS}",
            self.logs.path().display()
        );
        if turn == Turn::Second {
            text = text.replace("# in the second turn: ", "");
        }
        for (pool, _, _, _, more) in POOLS {
            let hosts = self.hosts.iter().filter(|host| host.pool == pool);
            let left_out = match turn {
                Turn::First => "moving-3",
                Turn::Second => "moving-1",
            };
            let hosts = hosts.filter(|host| host.name != left_out);
            let mut servers: Vec<String> = hosts.map(|host| server(host.port.address, &host.name)).collect();
            if pool == "mixed" {
                servers.push(server(self.refusing[0].address, "mixed-refusing"));
                servers.push(server(self.hanging.address, "mixed-hanging"));
            }
            text += &pool_section(pool, &servers, more);
        }
        let refusing = self.refusing.iter().zip(1..);
        let refusing: Vec<String> = refusing
            .map(|(port, number)| server(port.address, &format!("refusing-{number}")))
            .collect();
        text += &pool_section("refusing", &refusing, UNCHECKED);
        let hanging = server(self.hanging.address, "hanging-1");
        text += &pool_section("hanging", &[hanging], UNCHECKED);
        text
    }
}

/// One of the two configurations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    First,
    Second,
}

fn server(address: SocketAddr, name: &str) -> String {
    format!("{{ address = \"{address}\", name = \"{name}\" }}")
}

fn pool_section(pool: &str, servers: &[String], more: &str) -> String {
    format!("\n[pools.{pool}]\nservers = [{}]\n{more}\n", servers.join(", "))
}

/// The listeners of both configurations; the commented lines are part of the second one.
const LISTENERS: &str = r#"
[defaults]
connect_timeout = "1s"
# in the second turn: half_close_timeout = "30m"

[listeners.plain]
bind = "127.0.0.1:0"
pool = "plain"

[listeners.hash]
bind = "127.0.0.1:0"
pool = "hash"
# in the second turn: max_connections = 5000

[listeners.greeting]
bind = "127.0.0.1:0"
pool = "greeting"

[listeners.proxied]
bind = "127.0.0.1:0"
pool = "proxied"

[listeners.moving]
bind = "127.0.0.1:0"
pool = "moving"

[listeners.mixed]
bind = "127.0.0.1:0"
pool = "mixed"

[listeners.refusing]
bind = "127.0.0.1:0"
pool = "refusing"

[listeners.hanging]
bind = "127.0.0.1:0"
pool = "hanging"
max_connections = 20

[listeners.quiet]
bind = "127.0.0.1:0"
pool = "quiet"
idle_timeout = "1s"
half_close_timeout = "500ms"

[listeners.names]
bind = "127.0.0.1:0"
hello_timeout = "8s"
hello_max = "16KiB"
# in the second turn: keepalive = "off"

[[listeners.names.routes]]
name = "shop"
sni = ["shop.example.com", "*.shop.example.com"]
pool = "shop"

[[listeners.names.routes]]
sni = "*.example.org"
pool = "web"

[[listeners.names.routes]]
sni = "web.example.com"
from = "127.0.0.0/8"
pool = "web"

[[listeners.names.routes]]
sni = "refused.example.com"
refuse = true

# in the second turn: [listeners.more]
# in the second turn: bind = ["127.0.0.1:0", "127.0.0.2:0"]
# in the second turn: pool = "plain"
"#;
