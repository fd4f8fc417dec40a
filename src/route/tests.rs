use std::net::IpAddr;

use super::*;
use crate::sniff::hello::ProtocolList;
use proptest::prelude::*;

/// A route as a test writes it: `sni`, `alpn` and `from` are lists whose entries are separated by spaces.
pub(super) fn route(name: &str, sni: &str, alpn: &str, from: &str) -> Route<&'static str> {
    let pool = Box::leak(format!("pool of {name}").into_boxed_str());
    Route {
        name: name.into(),
        sni: sni
            .split_whitespace()
            .map(|text| NamePattern::from_config(text).unwrap())
            .collect(),
        alpn: alpn
            .split_whitespace()
            .map(|protocol| protocol.as_bytes().into())
            .collect(),
        from: from.split_whitespace().map(|text| text.parse().unwrap()).collect(),
        tls: TlsMode::Pass,
        database: Vec::new(),
        user: Vec::new(),
        guards: Vec::new(),
        to: Target::Pool(pool),
    }
}

/// A route for PostgreSQL: `database` and `user` are lists whose entries are separated by spaces.
pub(super) fn postgres_route(name: &str, database: &str, user: &str) -> Route<&'static str> {
    let globs = |text: &str| text.split_whitespace().map(Glob::new).collect();
    Route {
        database: globs(database),
        user: globs(user),
        ..route(name, "", "", "")
    }
}

fn protocols(text: &str) -> ProtocolList {
    ProtocolList::new(text.split_whitespace())
}

/// The name of the route that takes a client, or what happens to the client instead. If `client` is not an IP address,
/// the client's address is not known.
fn found(table: &RouteTable<&str>, name: &str, alpn: &str, client: &str) -> String {
    let name = Sni::from_wire(name.as_bytes());
    let input = RouteInput {
        name: name.as_ref(),
        alpn: &protocols(alpn),
        client: client.parse().ok().map(|ip: IpAddr| ClientAddr::new((ip, 1).into())),
        database: None,
        user: None,
    };
    match table.find(&input) {
        RouteChoice::Route { route, pool, .. } => {
            assert_eq!(*pool, format!("pool of {}", route.name));
            route.name.to_string()
        }
        RouteChoice::Refused { name, .. } => format!("refused by {name}"),
        RouteChoice::Default(_) => "default".into(),
        RouteChoice::NoRoute => "no route".into(),
    }
}

#[test]
fn the_rank_of_the_server_name_comes_first() {
    let table = RouteTable::new(
        vec![
            route("none", "", "h2", "10.0.0.0/8"),
            route("any", "*", "h2", "10.0.0.0/8"),
            route("wide", "*.example.com", "h2", "10.0.0.0/8"),
            route("narrow", "*.b.example.com", "", ""),
            route("exact", "a.b.example.com", "", ""),
        ],
        Some("default"),
    );
    let route_for = |name| found(&table, name, "h2", "10.0.0.1");
    assert_eq!(route_for("a.b.example.com"), "exact");
    assert_eq!(route_for("A.B.Example.COM."), "exact");
    assert_eq!(route_for("c.b.example.com"), "narrow");
    assert_eq!(route_for("d.c.b.example.com"), "narrow");
    assert_eq!(route_for("b.example.com"), "wide");
    assert_eq!(
        route_for("example.com"),
        "any",
        "`*.example.com` is never example.com itself"
    );
    assert_eq!(route_for("xexample.com"), "any");
    assert_eq!(route_for(""), "none");
    assert_eq!(route_for("10.0.0.7"), "none", "an IP literal is no name");
    assert_eq!(route_for("[2001:db8::7]"), "none", "nor is this one");
    assert_eq!(
        route_for("x!z.B.example.com."),
        "narrow",
        "a name that is not valid is matched on its bytes"
    );
    assert_eq!(
        route_for("x!z.a.b.example.com"),
        "narrow",
        "an exact route matches only its own name"
    );
    let long = format!("{}.example.com", "a".repeat(64));
    assert_eq!(found(&table, &long, "h2", "10.0.0.1"), "wide");
    assert_eq!(route_for("x!z"), "any");
    assert_eq!(found(&table, "example.com", "", "10.0.0.1"), "default");
}

#[test]
fn routes_with_equal_sni_are_ranked_by_condition_kinds_and_then_by_order() {
    let table = RouteTable::new(
        vec![
            route("plain", "a.com", "", ""),
            route("again", "a.com", "", ""),
            route("alpn", "a.com", "h2 http/1.1 h3", ""),
            route("from", "a.com", "", "10.0.0.0/8"),
            route("both", "A.com", "h2", "10.0.0.0/8"),
        ],
        None,
    );
    assert_eq!(found(&table, "a.com", "h2", "10.0.0.1"), "both");
    assert_eq!(
        found(&table, "a.com", "http/1.1", "10.0.0.1"),
        "alpn",
        "as many kinds of condition as `from`, and written first"
    );
    assert_eq!(found(&table, "a.com", "", "10.0.0.1"), "from");
    assert_eq!(found(&table, "a.com", "", "192.0.2.1"), "plain");
    assert_eq!(found(&table, "b.com", "", "192.0.2.1"), "no route");
}

#[test]
fn a_client_that_fails_the_exact_route_may_match_a_wildcard() {
    let table = RouteTable::new(
        vec![
            route("exact", "a.b.com", "", "10.0.0.0/8"),
            route("wild", "*.com", "", ""),
            route("all", "", "", ""),
        ],
        None,
    );
    assert_eq!(found(&table, "a.b.com", "", "10.0.0.1"), "exact");
    assert_eq!(
        found(&table, "a.b.com", "", "::ffff:10.0.0.1"),
        "exact",
        "an IPv4-mapped address is IPv4"
    );
    assert_eq!(found(&table, "a.b.com", "", "11.0.0.1"), "wild");
    assert_eq!(found(&table, "a.b.com", "", "no client"), "wild");
    assert_eq!(found(&table, "b.org", "", "11.0.0.1"), "all");
}

#[test]
fn a_client_without_tls_matches_only_routes_without_sni_and_alpn() {
    let mut routes = vec![
        route("any", "*", "", ""),
        route("alpn", "", "h2", ""),
        route("from", "", "", "::/0"),
    ];
    let table = RouteTable::new(routes.clone(), Some("default"));
    assert!(table.needs_hello());
    assert_eq!(found(&table, "", "", "2001:db8::1"), "from");
    assert_eq!(found(&table, "", "", "192.0.2.1"), "default");
    routes.drain(..2);
    routes[0].to = Target::Refuse;
    let table = RouteTable::new(routes, None);
    assert!(!table.needs_hello());
    assert_eq!(found(&table, "", "", "2001:db8::1"), "refused by from");
    assert_eq!(found(&table, "", "", "192.0.2.1"), "no route");
}

#[test]
fn every_route_is_explained() {
    let table = RouteTable::new(
        vec![
            route("wild", "*.b.com", "", ""),
            route("plain", "a.b.com", "", ""),
            route("h2", "a.b.com *.com", "h2", ""),
            route("late", "a.b.com", "h2 h3", ""),
            route("other", "b.com", "h3", "10.0.0.0/8"),
            route("far", "", "", "10.0.0.0/8"),
        ],
        None,
    );
    let name = Sni::from_wire(b"a.b.com").unwrap();
    let input = RouteInput {
        name: Some(&name),
        alpn: &protocols("h2"),
        client: None,
        database: None,
        user: None,
    };
    let explanation = table.explain(&input);
    let winner: Arc<str> = "h2".into();
    let outranked = |because| RouteVerdict::Outranked { by: &winner, because };
    let verdicts: Vec<_> = explanation.routes.iter().map(|(_, verdict)| verdict.clone()).collect();
    assert_eq!(
        verdicts,
        [
            outranked(Advantage::Name),
            outranked(Advantage::Kinds),
            RouteVerdict::Taken(Entries {
                sni: Some(&NamePattern::from_config("a.b.com").unwrap()),
                alpn: Some(b"h2"),
                from: None,
                database: None,
                user: None,
            }),
            outranked(Advantage::Order),
            RouteVerdict::PassedOver(vec![Condition::Name, Condition::Alpn, Condition::From]),
            RouteVerdict::PassedOver(vec![Condition::From]),
        ]
    );
    assert_eq!(explanation.choice, table.find(&input));
}

/// The index of the route that the table must choose, found by testing every route. The greatest rank wins; of equal
/// ranks, the first route.
fn reference_choice(routes: &[Route<&'static str>], input: &RouteInput<'_>) -> Option<usize> {
    // The rank of the pattern's kind, and the number of labels after `*.`.
    let name_rank = |route: &Route<&str>| -> Option<(u8, usize)> {
        let (name, is_valid) = match input.name {
            Some(Sni::Valid(name)) => (Some(name.as_str().to_owned()), true),
            Some(Sni::Invalid(name)) => (Some(format!("{name:?}")), false), // `Debug` writes no quotes
            None => (None, false),
        };
        let pattern_rank = |pattern: &NamePattern| match (pattern.to_string().as_str(), name.as_ref()?) {
            ("*", _) => Some((1, 0)),
            (pattern, name) => match pattern.strip_prefix('*') {
                Some(tail) => name.ends_with(tail).then(|| (2, tail.matches('.').count())),
                None => (is_valid && pattern == name).then_some((3, 0)),
            },
        };
        if route.sni.is_empty() {
            Some((0, 0))
        } else {
            route.sni.iter().filter_map(pattern_rank).max()
        }
    };
    // The rank of the name, and the number of kinds of condition besides `sni`; `None`: a condition does not hold.
    let rank = |route: &Route<&str>| {
        let alpn = route.alpn.is_empty()
            || input
                .alpn
                .iter()
                .any(|offered| route.alpn.iter().any(|wanted| **wanted == *offered));
        let ip = input.client.and_then(ClientAddr::ip);
        let from = route.from.is_empty() || ip.is_some_and(|ip| route.from.iter().any(|net| net.contains(&ip)));
        let fits = |patterns: &[Glob], text: Option<&[u8]>| {
            patterns.is_empty() || text.is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(text)))
        };
        let database_and_user = fits(&route.database, input.database) && fits(&route.user, input.user);
        let kinds = [
            route.alpn.len(),
            route.from.len(),
            route.database.len(),
            route.user.len(),
        ]
        .iter()
        .filter(|entries| **entries > 0)
        .count();
        name_rank(route)
            .filter(|_| alpn && from && database_and_user)
            .map(|of_name| (of_name, kinds))
    };
    routes
        .iter()
        .enumerate()
        .filter_map(|(index, route)| Some((rank(route)?, index)))
        .reduce(|best, next| if next.0 > best.0 { next } else { best })
        .map(|(_, index)| index)
}

/// Names of few different labels, so that patterns often match names.
fn names() -> impl Strategy<Value = String> {
    "[ab](\\.[ab]){0,3}"
}

/// Names like those of `names`, and names that are not valid.
fn asked_names() -> impl Strategy<Value = String> {
    "[ab!]{1,2}(\\.[ab!]?){0,3}"
}

fn routes() -> impl Strategy<Value = Vec<Route<&'static str>>> {
    let patterns = prop::collection::vec(
        prop_oneof![names(), names().prop_map(|n| format!("*.{n}")), Just("*".into())],
        0..4,
    );
    let alpn = prop::sample::subsequence(vec!["h2", "h3", "x"], 0..=2);
    let from = prop::sample::subsequence(vec!["10.0.0.0/8", "10.0.0.0/31", "::/0"], 0..=2);
    let database = prop::sample::subsequence(vec!["a", "a*"], 0..=1);
    let user = prop::sample::subsequence(vec!["u", "*"], 0..=1);
    let one = (patterns, alpn, from, database, user).prop_map(|(sni, alpn, from, database, user)| Route {
        database: database.into_iter().map(Glob::new).collect(),
        user: user.into_iter().map(Glob::new).collect(),
        ..route("", &sni.join(" "), &alpn.join(" "), &from.join(" "))
    });
    prop::collection::vec(one, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn a_lookup_agrees_with_a_naive_implementation(
        routes in routes(),
        name in prop::option::of(asked_names()),
        alpn in prop::sample::subsequence(vec!["h2", "h3", "y"], 0..=3),
        ip in prop::option::of(prop::sample::select(vec!["10.0.0.1", "10.9.9.9", "192.0.2.1", "2001:db8::1"])),
        startup in prop::option::of(prop::sample::select(vec![("a", "u"), ("ab", "u"), ("b", "v")])),
    ) {
        let name = name.and_then(|text| Sni::from_wire(text.as_bytes()));
        let input = RouteInput {
            name: name.as_ref(),
            alpn: &protocols(&alpn.join(" ")),
            client: ip.map(|ip| ClientAddr::new((ip.parse::<IpAddr>().unwrap(), 1).into())),
            database: startup.map(|(database, _)| database.as_bytes()),
            user: startup.map(|(_, user)| user.as_bytes()),
        };
        let expected = reference_choice(&routes, &input);
        let table = RouteTable::new(routes, Some("default"));
        prop_assert_eq!(table.best(&input), expected);
        let explained = table.explain(&input);
        let taken = explained.routes.iter().position(|(_, verdict)| matches!(verdict, RouteVerdict::Taken(_)));
        prop_assert_eq!(taken, expected);
    }
}

#[test]
fn a_postgresql_session_is_routed_by_database_and_user() {
    let table = RouteTable::new(
        vec![
            postgres_route("orders", "orders orders_*", ""),
            postgres_route("reports", "orders", "report_*"),
            postgres_route("admin", "", "admin"),
            route("named", "*", "", ""),
        ],
        Some("default"),
    );
    let route_for = |database: &'static str, user: &'static str| {
        let input = RouteInput {
            name: None,
            alpn: &ProtocolList::default(),
            client: None,
            database: Some(database.as_bytes()),
            user: Some(user.as_bytes()),
        };
        match table.find(&input) {
            RouteChoice::Route { route, .. } => route.name.to_string(),
            _ => "default".into(),
        }
    };
    assert_eq!(route_for("orders", "app"), "orders");
    assert_eq!(route_for("orders_2", "admin"), "orders", "the first of equals");
    assert_eq!(route_for("orders", "report_1"), "reports", "more kinds of condition");
    assert_eq!(route_for("other", "admin"), "admin");
    assert_eq!(route_for("Orders", "app"), "default");
    assert_eq!(
        found(&table, "", "", ""),
        "default",
        "a client without a StartupMessage"
    );
    assert!(table.needs_startup());
}

#[test]
fn a_list_of_30_000_protocols_is_scanned_once() {
    let routes = |index: usize| route(&format!("#{index}"), "a.b", &format!("p{index}"), "");
    let table = RouteTable::new((0..2_000).map(routes).collect(), None);
    let name = Sni::from_wire(b"a.b").unwrap();
    let alpn = ProtocolList::new(vec![b"x".as_slice(); 30_000].into_iter().chain([b"p1999".as_slice()]));
    let input = RouteInput {
        name: Some(&name),
        alpn: &alpn,
        client: None,
        database: None,
        user: None,
    };
    let began = tokio::time::Instant::now();
    assert_eq!(table.best(&input), Some(1_999));
    // 60 million comparisons would take seconds in a build for tests.
    assert!(
        began.elapsed() < std::time::Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}
