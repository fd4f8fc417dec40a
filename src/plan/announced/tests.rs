//! Plans with announced routes.

use std::time::Duration;

use super::*;
use crate::plan::{KeptAnnouncement, ListedServer};
use crate::pool::MemberConfig;

const CONFIG: &str = r#"
[defaults]
connect_timeout = "7s"
[listeners.https]
bind = "127.0.0.1:443"
pool = "web"
announce = { from = "docker", names = ["*.apps.test", "shop.test"] }
[[listeners.https.routes]]
sni = ["own.apps.test", "*.test"]
pool = "web"
[[listeners.https.routes]]
name = "https:named.apps.test"
sni = "named.test"
pool = "web"
[listeners.plain]
bind = "127.0.0.1:80"
pool = "web"
[pools.web]
servers = ["10.0.0.1:80"]
[pools."https:taken.apps.test"]
servers = ["10.0.0.2:80"]
"#;

fn plan() -> Plan {
    crate::config::read("a.toml", CONFIG).ok().unwrap().plan
}

fn server(name: &str, address: &str) -> ServerEntry {
    let listed = ListedServer {
        name: Some(name.to_owned()),
        ..ListedServer::at(address.to_owned())
    };
    listed.into_entry(MemberConfig::default()).unwrap()
}

/// The announcement of the server name `sni` by the container `from`, which was created at this time.
fn announced(from: &str, created: i64, sni: &str) -> Announcement {
    Announcement {
        from: from.into(),
        created,
        listener: "https".into(),
        sni: sni.into(),
        group: None,
        server: Ok(server(from, &format!("10.1.0.{created}:80"))),
    }
}

/// The pool, with its servers, of a client that asks for this name at the listener `https`.
fn reached(plan: &Plan, sni: &str) -> (String, Vec<String>) {
    use crate::plan::RouteQuestion;
    use crate::route::RouteChoice;
    let question = RouteQuestion {
        sni: Some(sni),
        ..RouteQuestion::default()
    };
    let pool = match question.explain(&plan.listeners[0]).choice {
        RouteChoice::Route { pool, .. } | RouteChoice::Default(pool) => *pool,
        choice => panic!("{choice:?}"),
    };
    let pool = &plan.pools[pool];
    let servers = pool.entries.iter().map(|entry| entry.label().to_string());
    (pool.name.to_string(), servers.collect())
}

fn reasons(plan: &Plan) -> Vec<String> {
    let refused = plan.refused_announcements.iter();
    refused
        .map(|refused| format!("{}: {}", refused.from, refused.reason))
        .collect()
}

#[test]
fn containers_that_announce_one_name_are_one_pool() {
    let announcements = [
        announced("b", 2, "a.apps.test"),
        announced("a", 1, "A.apps.test."),
        announced("c", 3, "shop.test"),
    ];
    let plan = plan().with_announced(&announcements);
    let pool = |name: &str, servers: &[&str]| (name.to_owned(), servers.iter().map(ToString::to_string).collect());
    assert_eq!(reached(&plan, "a.apps.test"), pool("https:a.apps.test", &["a", "b"]));
    assert_eq!(
        reached(&plan, "shop.test"),
        pool("https:shop.test", &["c"]),
        "the announced name wins over `*.test` of the file"
    );
    assert_eq!(reached(&plan, "other.apps.test"), pool("web", &["10.0.0.1:80"]));
    assert_eq!(reasons(&plan), Vec::<String>::new());
    assert_eq!(plan.listeners[1].routes.routes().len(), 0);
    let web = plan.pool("web").unwrap();
    let shop = plan.pool("https:shop.test").unwrap();
    assert_eq!(shop.rules.connect_timeout, Duration::from_secs(7), "of `[defaults]`");
    assert_eq!((&shop.health, &shop.rules), (&web.health, &web.rules));
}

#[test]
fn disallowed_announcements_are_refused_with_the_reason() {
    let to = |listener: &str, sni: &str| Announcement {
        listener: listener.into(),
        ..announced("a", 1, sni)
    };
    let at = |address: &str| Announcement {
        server: Ok(server("a", address)),
        ..announced("a", 1, "a.apps.test")
    };
    let without_server = Announcement {
        server: Err("it exposes no port".into()),
        ..announced("a", 1, "a.apps.test")
    };
    let long = format!("{}.{}.apps.test", "x".repeat(60), "y".repeat(60));
    for (announcement, reason) in [
        (to("htps", "a.apps.test"), "there is no such listener"),
        (to("plain", "a.apps.test"), "the listener has no `announce`"),
        (
            to("https", "apps.test"),
            "`announce` of the listener does not allow this name",
        ),
        (
            to("https", "a.apps.test.evil"),
            "`announce` of the listener does not allow this name",
        ),
        (to("https", ""), "a server name must not be empty"),
        (
            to("https", "*.apps.test"),
            "a server name is made of letters, digits, `-`, `_` and dots",
        ),
        (
            to("https", "own.apps.test"),
            "route `https#1` of the configuration has this name",
        ),
        (
            to("https", "taken.apps.test"),
            "the configuration has a pool of the name `https:taken.apps.test`",
        ),
        (
            to("https", "named.apps.test"),
            "the listener has a route of the name `https:named.apps.test`",
        ),
        (
            to("https", &long),
            "the name of its pool, LISTENER:NAME, would be longer than 128 bytes",
        ),
        (at("127.0.0.1:443"), "its address is that of the listener"),
        (without_server, "it exposes no port"),
    ] {
        let plan = plan().with_announced(&[announcement]);
        assert_eq!(reasons(&plan), [format!("a: {reason}")]);
        assert_eq!(plan.pools.len(), 2);
    }
}

#[test]
fn the_number_of_names_of_a_server_and_of_a_listener_is_bounded() {
    let name = |number: usize| format!("n{number}.apps.test");
    let many = (0..=SERVER_NAMES_MAX).map(|number| announced("one", 1, &name(number)));
    let plan = plan().with_announced(&many.collect::<Vec<_>>());
    assert_eq!(reasons(&plan), ["one: it has 100 names already, and may not have more"]);
    let per_server = SERVER_NAMES_MAX;
    let of_all = (0..LISTENER_NAMES_MAX + 2).map(|number| {
        let from = format!("s{}", number / per_server);
        announced(&from, (number / per_server) as i64, &name(number))
    });
    let plan = self::plan().with_announced(&of_all.collect::<Vec<_>>());
    assert_eq!(
        reasons(&plan),
        ["s10: the listener has 1000 names already, and may not have more"; 2]
    );
    let counts = plan.announced_route_counts.iter();
    let names = counts.map(|(_, routes)| routes).sum::<usize>();
    assert_eq!(names, LISTENER_NAMES_MAX);
}

#[test]
fn an_announcement_with_a_server_can_be_kept_and_restored() {
    let announcement = Announcement {
        group: Some("shop".into()),
        ..announced("a", 1, "a.apps.test")
    };
    let kept = KeptAnnouncement::new(&announcement).unwrap();
    let text = serde_json::to_string(&kept).unwrap();
    let kept: KeptAnnouncement = serde_json::from_str(&text).unwrap();
    assert_eq!(Announcement::from(kept), announcement);
    let without_server = Announcement {
        server: Err("it exposes no port".into()),
        ..announcement
    };
    assert!(KeptAnnouncement::new(&without_server).is_none());
}

#[test]
fn the_older_of_two_conflicting_announcements_wins() {
    let in_group = |group: &str, announcement: Announcement| Announcement {
        group: Some(group.into()),
        ..announcement
    };
    let old = in_group("shop", announced("old", 1, "a.apps.test"));
    let young = in_group("blog", announced("young", 2, "a.apps.test"));
    let third = in_group("shop", announced("third", 3, "a.apps.test"));
    for order in [[&old, &young, &third], [&third, &young, &old]] {
        let plan = plan().with_announced(&order.map(Clone::clone));
        assert_eq!(reached(&plan, "a.apps.test").1, ["old", "third"]);
        assert_eq!(
            reasons(&plan),
            ["young: `old`, which is older, announces the name with another `acequia.pool`"]
        );
    }
    let alone = plan().with_announced(&[young]);
    assert_eq!(reached(&alone, "a.apps.test").1, ["young"], "the older has left");
}
