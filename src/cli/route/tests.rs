use super::*;
use crate::account::access_log::{AccessTarget, LogFormat};
use crate::addr::{ServerAddr, ServerLocation};
use crate::check::tcp::TcpCheck;
use crate::dial::{ConnectOptions, DialOptions};
use crate::name::NamePattern;
use crate::plan::{
    AdminPlan, Failback, HealthPlan, LogPlan, PoolPlan, Protocol, RetirePlan, RuntimePlan, ServerEntry, Sever,
    SeveringPlan,
};
use crate::pool::{EjectLimits, MemberConfig, Policy, PoolRules, RoleRequirement, Thresholds};
use crate::relay::RelayLimits;
use crate::route::Route;
use crate::route::{RouteTable, Target, TlsMode};
use crate::sniff::SniffLimits;
use crate::socket::SocketOptions;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const SOCKET: SocketOptions = SocketOptions {
    keepalive: None,
    user_timeout: None,
};

fn entry(name: Option<&str>, written: &str, weight: u16) -> ServerEntry {
    let location = match (written.parse(), written.rsplit_once(':')) {
        (Ok(address), _) => ServerLocation::Address(ServerAddr::new(address)),
        (Err(_), Some((host, port))) => ServerLocation::Name {
            host: host.into(),
            port: port.parse().unwrap(),
        },
        (Err(_), None) => panic!("{written} has no port"),
    };
    ServerEntry {
        name: name.map(Into::into),
        written: written.into(),
        location,
        member_config: MemberConfig {
            weight,
            ..MemberConfig::default()
        },
    }
}

fn pool(name: &str, policy: Policy, entries: Vec<ServerEntry>) -> Arc<PoolPlan> {
    let eject = EjectLimits {
        after: 3,
        first: SECOND,
        longest: SECOND,
        percent_max: 50,
        on_reset: false,
    };
    let rules = PoolRules {
        policy,
        eject,
        connect_timeout: SECOND,
        slow_start: None,
        panic_threshold: None,
        queue: None,
        wake: None,
        waits_for_return: false,
    };
    let thresholds = Thresholds { rise: 2, fall: 3 };
    Arc::new(PoolPlan {
        name: name.into(),
        rules,
        dial: DialOptions {
            connect: ConnectOptions {
                source: None,
                timeout: SECOND,
                socket: SOCKET,
                proxy_protocol: None,
            },
            retries: 2,
        },
        health: HealthPlan {
            check: Some(Arc::new(TcpCheck)),
            interval: SECOND,
            interval_down: SECOND,
            timeout: SECOND,
            required: RoleRequirement::default(),
            thresholds,
            role_trust: SECOND,
            address: None,
            port: None,
            concurrency: 64,
        },
        severing: SeveringPlan {
            on_down: Sever::Keep,
            on_lag: Sever::Keep,
            on_recover: Sever::Keep,
            on_leave: Sever::Keep,
            close_over: SECOND,
        },
        retiring: RetirePlan {
            max_age: None,
            rebalance: None,
            idle_for: SECOND,
        },
        failback: Failback::Auto,
        fallback: None,
        entries: entries.into(),
        defaults: MemberConfig::default(),
        discover: None,
        scale: None,
        resolve_interval: SECOND,
        tls: None,
        direct_tls: true,
        resolve: crate::addr::IpFamily::Both,
    })
}

const WEB: PoolId = PoolId(0);
const SHOP: PoolId = PoolId(1);
const INSIDE: PoolId = PoolId(2);

type Routes = Vec<Route<PoolId>>;

fn listener(name: &str, routes: Routes, default: Option<PoolId>) -> Arc<ListenerPlan> {
    Arc::new(ListenerPlan {
        unix_mode: 0o660,
        name: name.into(),
        bind: Vec::new(),
        backlog: 1,
        max_connections: None,
        accept_proxy: None,
        guards: Vec::new(),
        redirect: None,
        protocol: Protocol::Tcp,
        sniff: SniffLimits {
            hello_timeout: SECOND,
            hello_bytes_max: 1,
        },
        routes: RouteTable::new(routes, default),
        announce: None,
        tls: None,
        relay: RelayLimits {
            idle_timeout: None,
            half_close_timeout: None,
            ends_with_server: false,
        },
        socket: SOCKET,
    })
}

fn route(name: &str, sni: &[&str], alpn: &[&str], from: &[&str], to: Target<PoolId>) -> Route<PoolId> {
    Route {
        name: name.into(),
        sni: sni.iter().map(|text| NamePattern::from_config(text).unwrap()).collect(),
        alpn: alpn.iter().map(|protocol| protocol.as_bytes().into()).collect(),
        from: from.iter().map(|network| network.parse().unwrap()).collect(),
        database: Vec::new(),
        user: Vec::new(),
        guards: Vec::new(),
        tls: TlsMode::Pass,
        to,
    }
}

/// The README's example "HTTPS by server name" with other servers and more conditions, a listener that does not sniff,
/// and one without a default pool.
fn plan() -> Plan {
    let web = pool("web", Policy::RoundRobin, vec![entry(None, "10.0.0.1:443", 1)]);
    let shop = pool(
        "shop",
        Policy::LeastConn,
        vec![
            entry(None, "10.0.1.1:443", 1),
            entry(Some("big"), "10.0.1.2:443", 3),
            entry(None, "shop.internal:443", 1),
            entry(Some("spare"), "10.0.1.3:443", 0),
        ],
    );
    let inside = pool(
        "shop-inside",
        Policy::SourceHash,
        vec![
            entry(None, "10.0.2.1:443", 1),
            entry(None, "10.0.2.2:443", 2),
            entry(None, "10.0.2.3:443", 1),
            entry(Some("cloud"), "inside.internal:443", 2),
        ],
    );
    let routes = vec![
        route(
            "https#1",
            &["shop.example.com", "*.shop.example.com"],
            &[],
            &[],
            Target::Pool(SHOP),
        ),
        route(
            "insiders",
            &["shop.example.com"],
            &["h2"],
            &["10.0.0.0/8", "2001:db8::/32"],
            Target::Pool(INSIDE),
        ),
        route("https#3", &["*.internal.example.com"], &[], &[], Target::Refuse),
    ];
    let many = ["a", "b", "c", "d", "e", "f"];
    Plan {
        runtime: RuntimePlan {
            workers: None,
            max_connections: None,
            hello_memory_bytes: 1,
            drain_timeout: SECOND,
            drain_delay: SECOND,
            watch: false,
        },
        state_dir: None,
        admin: AdminPlan::default(),
        log: LogPlan {
            format: LogFormat::Json,
            level: tracing::Level::INFO,
            access: AccessTarget::Off,
        },
        remote: None,
        acme: Vec::new(),
        guards: Vec::new(),
        listeners: vec![
            listener("https", routes, Some(WEB)),
            listener("plain", Vec::new(), Some(INSIDE)),
            listener("strict", vec![route("many", &many, &[], &[], Target::Refuse)], None),
        ],
        pools: [web, shop, inside].into_iter().collect(),
        announced_route_counts: Vec::new(),
        refused_announcements: Vec::new(),
    }
}

fn explanation(listener: &str, sni: Option<&str>, alpn: &[&str], from: Option<&str>) -> String {
    let args = RouteArgs {
        listener: listener.into(),
        sni: sni.map(Into::into),
        alpn: alpn.iter().map(ToString::to_string).collect(),
        from: from.map(|ip| ip.parse().unwrap()),
        ..RouteArgs::default()
    };
    explain(&plan(), &LiveTls::default(), &args).unwrap()
}

#[test]
fn the_matching_route_and_the_source_hash_order_are_shown() {
    assert_eq!(
        explanation(
            "https",
            Some("Shop.Example.com."),
            &["h2", "http/1.1"],
            Some("10.1.2.3")
        ),
        "\
listener https: a client from 10.1.2.3, sni shop.example.com, alpn h2, http/1.1

  https#1   holds, but insiders wins: it has more kinds of condition
  insiders  taken: sni matches shop.example.com; alpn has h2; from is in 10.0.0.0/8
  https#3   passed over: sni is not *.internal.example.com

route insiders: pool shop-inside
source-hash; the servers in the order in which they are tried:
  1. 10.0.2.2:443, weight 2
  2. 10.0.2.1:443
  3. 10.0.2.3:443
also tried, at unknown places among the servers of their priority:
  cloud at inside.internal:443, weight 2, a name: resolved only while acequia runs
"
    );
}

#[test]
fn without_a_client_address_no_from_condition_holds() {
    assert_eq!(
        explanation("https", Some("shop.example.com"), &["h2"], None),
        "\
listener https: a client from anywhere, sni shop.example.com, alpn h2
note: without --from, no `from` condition holds

  https#1   taken: sni matches shop.example.com
  insiders  passed over: from is not in 10.0.0.0/8 or 2001:db8::/32
  https#3   passed over: sni is not *.internal.example.com

route https#1: pool shop
least-conn; the candidates:
  10.0.1.1:443
  big at 10.0.1.2:443, weight 3
  shop.internal:443, a name: resolved only while acequia runs
note: spare has weight 0 and takes no new session
"
    );
}

#[test]
fn an_ip_address_as_name_goes_to_the_default_pool() {
    assert_eq!(
        explanation("https", Some("10.0.0.7"), &[], Some("192.0.2.1")),
        "\
listener https: a client from 192.0.2.1, no sni, no alpn
note: `10.0.0.7` counts as no name: an IP address is not a server name (clients send only host names)

  https#1   passed over: sni is not shop.example.com or *.shop.example.com
  insiders  passed over: sni is not shop.example.com; alpn lacks h2; from is not in 10.0.0.0/8 or 2001:db8::/32
  https#3   passed over: sni is not *.internal.example.com

no route takes it: the listener's pool web
round-robin; the candidates:
  10.0.0.1:443
"
    );
}

#[test]
fn a_listener_that_does_not_sniff_uses_its_default_pool() {
    assert_eq!(
        explanation("plain", Some("a.b"), &[], None),
        "\
listener plain: a client from anywhere, sni a.b, no alpn
note: no route has sni or alpn, so this listener does not read them

no route takes it: the listener's pool shop-inside
source-hash; the candidates:
  10.0.2.1:443
  10.0.2.2:443, weight 2
  10.0.2.3:443
  cloud at inside.internal:443, weight 2, a name: resolved only while acequia runs
note: with --from, the servers are shown in the order in which they are tried
"
    );
}

#[test]
fn refusing_routes_and_listeners_without_a_default_pool_refuse_the_client() {
    assert!(
        explanation("https", Some("a.internal.example.com"), &[], None)
            .ends_with("taken: sni matches *.internal.example.com\n\nroute https#3: refused\n")
    );
    assert!(explanation("strict", Some("f"), &[], None).ends_with("taken: sni matches f\n\nroute many: refused\n"));
    assert!(explanation("strict", Some("g"), &[], None).ends_with(
        "  many  passed over: sni is not a or b or c or d or any of 2 more\n\n\
         no route takes it and the listener has no pool: refused\n"
    ));
}

#[test]
fn an_invalid_name_is_explained() {
    assert_eq!(
        explanation("https", Some("x!z.Internal.example.com"), &[], Some("192.0.2.1")),
        "\
listener https: a client from 192.0.2.1, sni x!z.Internal.example.com, no alpn
note: `x!z.Internal.example.com` is not valid, only `*` and `*.suffix` match it: a server name is made of letters, digits, `-`, `_` and dots

  https#1   passed over: sni is not shop.example.com or *.shop.example.com
  insiders  passed over: sni is not shop.example.com; alpn lacks h2; from is not in 10.0.0.0/8 or 2001:db8::/32
  https#3   taken: sni matches *.internal.example.com

route https#3: refused
"
    );
}

const POSTGRES: &str = r#"
[listeners.db]
bind = "127.0.0.1:0"
protocol = "postgres"
pool = "p"
[[listeners.db.routes]]
database = ["orders", "orders_*"]
user = "app"
pool = "p"
[pools.p]
servers = ["10.0.0.1:5432"]
"#;

/// Added to [`POSTGRES`], it makes the listener terminate TLS, except for the server name `passed.example`.
const POSTGRES_TLS: &str = r#"
[listeners.db.tls]
certificates = { directory = "/none" }
[[listeners.db.routes]]
sni = "passed.example"
tls = "pass"
pool = "p"
"#;

/// The explanation for a client of the database `orders_2`.
fn explained_in(config: &str, user: Option<&str>, sni: Option<&str>) -> String {
    let plan = config::read("test.toml", config).ok().unwrap().plan;
    let args = RouteArgs {
        listener: "db".into(),
        sni: sni.map(Into::into),
        database: Some("orders_2".into()),
        user: user.map(Into::into),
        ..RouteArgs::default()
    };
    explain(&plan, &LiveTls::default(), &args).unwrap()
}

#[track_caller]
fn assert_explains(explanation: &str, expected: &[&str]) {
    for part in expected {
        assert!(explanation.contains(part), "expected {part:?} in:\n{explanation}");
    }
}

#[test]
fn the_route_of_a_postgresql_session_without_tls_is_explained() {
    let taken = explained_in(POSTGRES, Some("app"), None);
    let expected = [
        "listener db: a client from anywhere, no sni, no alpn, database orders_2, user app\n",
        "  db#1  taken: database matches orders_*; user matches app\n",
    ];
    assert_explains(&taken, &expected);
    let passed_over = explained_in(POSTGRES, None, None);
    assert_explains(&passed_over, &["  db#1  passed over: user is not app\n"]);
}

#[test]
fn the_database_of_a_postgresql_session_in_tls_is_known_only_if_the_tls_is_terminated() {
    let encrypted = explained_in(POSTGRES, Some("app"), Some("a.example"));
    let note = "note: a client with sni or alpn uses TLS, and its database and user are encrypted\n";
    assert_explains(&encrypted, &[note, "passed over: database is not"]);
    let with_tls = POSTGRES.replace("[pools.p]", &format!("{POSTGRES_TLS}[pools.p]"));
    let decrypted = explained_in(&with_tls, Some("app"), Some("a.example"));
    assert_explains(&decrypted, &["db#1  taken: database matches orders_*"]);
    let passed = explained_in(&with_tls, Some("app"), Some("passed.example"));
    assert_explains(&passed, &["are encrypted\n", "db#2  taken"]);
}

#[test]
fn a_full_server_is_passed_over_only_if_another_one_of_its_tier_takes_sessions() {
    let config = |servers: &str| {
        format!("[listeners.l]\nbind = \"127.0.0.1:9\"\npool = \"p\"\n[pools.p]\nservers = [{servers}]\n")
    };
    let limited = "{ address = \"10.0.0.1:1\", max_sessions = 2 }";
    for (other, expected) in [
        (", weight = 0", "while all are full: refused (servers_full)"),
        (", priority = 1", "while all are full: refused (servers_full)"),
        ("", "full servers are passed over\n"),
    ] {
        let servers = format!("{limited}, {{ address = \"10.0.0.2:1\"{other} }}");
        let plan = config::read("test.toml", &config(&servers)).ok().unwrap().plan;
        let args = RouteArgs {
            listener: "l".into(),
            ..RouteArgs::default()
        };
        let explanation = explain(&plan, &LiveTls::default(), &args).unwrap();
        assert_explains(&explanation, &[&format!("\n{expected}")]);
    }
}

#[test]
fn an_unknown_listener_is_an_error_with_the_known_ones() {
    let args = RouteArgs {
        listener: "http".into(),
        ..RouteArgs::default()
    };
    assert_eq!(
        explain(&plan(), &LiveTls::default(), &args).unwrap_err().to_string(),
        "there is no listener `http`; known listeners: https, plain, strict"
    );
}
