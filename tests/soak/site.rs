//! The two configurations that alternate, and the servers behind acequia.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::records::address;
use crate::support::process::Port;
use crate::support::server::{Hanging, hanging, refusing};

/// What the servers of a pool do before they read the [`Order`](crate::order::Order) of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Nothing.
    Plain,
    /// Sends a greeting first.
    Greets,
    /// Speaks TLS, with the certificate of the pool of this name.
    Tls(&'static str),
    /// Requires a PROXY header of version 2. The client's address in it is in 127/8 or, if a proxy in front has named
    /// the client (`is_named`), in [`NAMED`](crate::records::NAMED).
    Proxied { is_named: bool },
}

/// A pool of both configurations.
pub struct Pool {
    pub name: &'static str,
    /// The number of its servers.
    servers: usize,
    pub nature: Nature,
    /// Whether its servers may die.
    is_killable: bool,
    /// Further lines of its configuration.
    keys: &'static str,
}

pub const POOLS: [Pool; 11] = [
    killable("plain", 3, Nature::Plain, HIGH_LIMIT),
    killable("hash", 3, Nature::Plain, HASH),
    killable("greeting", 2, Nature::Greets, ROUND_ROBIN),
    killable("shop", 3, Nature::Tls("shop"), CHECKED),
    killable("web", 2, Nature::Tls("web"), CHECKED),
    steady("mixed", 1, Nature::Plain, UNCHECKED),
    steady("quiet", 1, Nature::Plain, CHECKED),
    killable("proxied", 2, Nature::Proxied { is_named: false }, PROXIED),
    killable("fronted", 2, Nature::Proxied { is_named: true }, PROXIED),
    steady(QUEUED, 2, Nature::Plain, LOW_LIMIT),
    steady(MOVING, 3, Nature::Plain, UNCHECKED),
];

/// A pool whose servers may die.
const fn killable(name: &'static str, servers: usize, nature: Nature, keys: &'static str) -> Pool {
    Pool {
        is_killable: true,
        ..steady(name, servers, nature, keys)
    }
}

/// A pool whose servers do not die.
const fn steady(name: &'static str, servers: usize, nature: Nature, keys: &'static str) -> Pool {
    Pool {
        name,
        servers,
        nature,
        is_killable: false,
        keys,
    }
}

const UNCHECKED: &str = "health.check = \"off\"";
/// With a timeout that even a busy machine meets, so that only a server that has died is marked down.
const CHECKED: &str = "health = { interval = \"500ms\", timeout = \"5s\", fall = 2 }";
/// With a session limit that is reached only if sessions that have ended are still counted.
const HIGH_LIMIT: &str = "max_sessions = 10000\nqueue = {}\n\
                           health = { interval = \"500ms\", timeout = \"5s\", fall = 2 }";
/// With a session limit that is often reached: clients wait, and some of them time out. There are no checks, because
/// the servers would count the connections of checks as sessions.
const LOW_LIMIT: &str = "max_sessions = 4\nqueue = { max = 12, timeout = \"1s\" }\nhealth.check = \"off\"";
const HASH: &str = "balance = \"source-hash\"\non_down = \"close\"\nclose_over = \"1s\"\n\
                    health = { interval = \"200ms\", timeout = \"5s\" }";
const ROUND_ROBIN: &str =
    "balance = \"round-robin\"\nslow_start = \"2s\"\nhealth.interval = \"1s\"\nhealth.timeout = \"5s\"";
const PROXIED: &str =
    "balance = \"random-two\"\nproxy_protocol = \"v2\"\nhealth.interval = \"1s\"\nhealth.timeout = \"5s\"";

/// Server names that are routed to the pool `shop`.
pub const SHOP: [&str; 2] = ["shop.example.com", "deep.shop.example.com"];
/// Server names that are routed to the pool `web`.
pub const WEB: [&str; 2] = ["web.example.com", "anything.example.org"];

/// The pool whose servers differ between the configurations. The metrics of a server are removed with the server, so
/// that sums over this pool's metrics may be less than those of the log.
pub const MOVING: &str = "moving";

/// The pool whose servers take only a few sessions at a time.
pub const QUEUED: &str = "queued";
/// The most sessions that each server of [`QUEUED`] takes at a time.
pub const QUEUED_SESSIONS_MAX: usize = 4;

/// Whether the guard `odd` denies the client of this session. It denies every other network of 256 addresses.
pub fn is_denied(session: u32) -> bool {
    address(session).octets()[2] % 2 == 1
}

/// A server, with its reserved port.
pub struct Host {
    pub pool: &'static str,
    pub name: String,
    pub nature: Nature,
    pub is_killable: bool,
    pub port: Port,
}

/// All servers behind acequia, and the directory of the access log.
pub struct Site {
    pub logs: TempDir,
    pub hosts: Vec<Host>,
    refusing: [Port; 2],
    hanging: Hanging,
}

impl Site {
    pub fn new() -> Self {
        let hosts = |pool: Pool| {
            (1..=pool.servers).map(move |number| Host {
                pool: pool.name,
                name: format!("{}-{number}", pool.name),
                nature: pool.nature,
                is_killable: pool.is_killable,
                port: Port::keep(),
            })
        };
        Self {
            logs: tempfile::tempdir().expect("a temporary directory can be created"),
            hosts: POOLS.into_iter().flat_map(hosts).collect(),
            refusing: [refusing(), refusing()],
            hanging: hanging(),
        }
    }

    /// One of the two configurations.
    pub fn config(&self, turn: Turn) -> String {
        let mut text = format!(
            "[log]\naccess = \"{}/access.log\"\n{LISTENERS}\n[guards.odd]\ndeny = {:?}\n",
            self.logs.path().display(),
            denied()
        );
        if turn == Turn::Second {
            text = text.replace("# in the second turn: ", "");
        }
        for pool in POOLS {
            let hosts = self.hosts.iter().filter(|host| host.pool == pool.name);
            let left_out = match turn {
                Turn::First => "moving-3",
                Turn::Second => "moving-1",
            };
            let hosts = hosts.filter(|host| host.name != left_out);
            let mut servers: Vec<String> = hosts.map(|host| server(host.port.address, &host.name)).collect();
            if pool.name == "mixed" {
                servers.push(server(self.refusing[0].address, "mixed-refusing"));
                servers.push(server(self.hanging.address, "mixed-hanging"));
            }
            text += &pool_section(pool.name, &servers, pool.keys);
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

/// The networks that the guard `odd` denies (see [`is_denied`]), for the clients of a million sessions.
fn denied() -> Vec<String> {
    let first_sessions = (0..1 << 20).step_by(256);
    let denied = first_sessions.filter(|session| is_denied(*session));
    denied.map(|session| format!("{}/24", address(session))).collect()
}

fn server(address: SocketAddr, name: &str) -> String {
    format!("{{ address = \"{address}\", name = \"{name}\" }}")
}

fn pool_section(name: &str, servers: &[String], keys: &str) -> String {
    format!("\n[pools.{name}]\nservers = [{}]\n{keys}\n", servers.join(", "))
}

/// The listeners of both configurations; the lines marked `# in the second turn` are only in the second one.
const LISTENERS: &str = r#"
[defaults]
connect_timeout = "1s"
# in the second turn: half_close_timeout = "30m"

# Limits that nobody reaches, except the bandwidth of a session.
[guards.wide]
sessions = 100000
sessions_per_source = 100000
rate = "1000000/s"
rate_per_source = "1000000/s"
bandwidth = "4GiB/s"
bandwidth_per_session = "64MiB/s"
# in the second turn: deny = "192.0.2.0/24"

# Limits that some clients exceed.
[guards.narrow]
by.ipv4 = 24
sessions = 6
sessions_per_source = 4
rate = "15/s"
rate_per_source = "10/s"
burst = 3
sources_max = 1000
# in the second turn: refuse_with = "close"

# Limits that many clients exceed. This is only reported.
[guards.reporting]
sessions = 1
rate = "1/s"
bandwidth = "1KiB/s"
report_only = true

[listeners.denying]
bind = "127.0.0.1:0"
pool = "plain"
guards = ["odd", "reporting"]

[listeners.limited]
bind = "127.0.0.1:0"
pool = "plain"
guards = "narrow"

[listeners.queued]
bind = "127.0.0.1:0"
pool = "queued"

[listeners.fronted]
bind = "127.0.0.1:0"
pool = "fronted"
accept_proxy = { from = "127.0.0.0/8", require = true }
hello_timeout = "8s"
guards = "wide"

[listeners.plain]
bind = "127.0.0.1:0"
pool = "plain"
guards = "wide"

[listeners.hash]
bind = "127.0.0.1:0"
pool = "hash"
guards = "wide"
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
guards = "wide"
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
