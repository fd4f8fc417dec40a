//! Server names are compared without regard to case and a final dot: from clients, in the configuration, and on the
//! command line.

use crate::support::client::{Client, ask};
use crate::support::hello::Hello;
use crate::support::process::must;
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;

/// A name as a client may write it, and the route that it must take.
const NAMES: &[(&str, &str)] = &[
    ("shop.example", "exact"),
    ("SHOP.EXAMPLE", "exact"),
    ("Shop.Example.", "exact"),
    ("shop.example.", "exact"),
    ("a.wild.example", "wild"),
    ("A.B.Wild.Example.", "wild"),
    ("a.WILD.example.", "wild"),
    ("closed.example", "closed"),
    ("CLOSED.example.", "closed"),
];

#[test]
fn names_match_in_any_case_and_with_a_final_dot() {
    let server = Server::echo();
    let config = |exact: &str, wild: &str, closed: &str| {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\n\
             [[listeners.l.routes]]\nname = \"exact\"\nsni = \"{exact}\"\npool = \"p\"\n\
             [[listeners.l.routes]]\nname = \"wild\"\nsni = \"{wild}\"\npool = \"p\"\n\
             [[listeners.l.routes]]\nname = \"closed\"\nsni = \"{closed}\"\nrefuse = true\n\
             [pools.p]\nservers = [\"{}\"]\n",
            server.address
        )
    };
    for config in [
        config("shop.example", "*.wild.example", "closed.example"),
        config("SHOP.example.", "*.Wild.EXAMPLE.", "Closed.Example."),
    ] {
        let proxy = Proxy::start(&config);
        for (number, (name, route)) in NAMES.iter().enumerate() {
            let hello = Hello::named(name).bytes();
            if *route == "closed" {
                let answer = Client::connect(proxy.at("l")).send(&hello).read_all();
                assert_eq!(answer.last(), Some(&112), "{name}: expected unrecognized_name");
            } else {
                assert!(ask(proxy.at("l"), &hello) == hello, "{name}: expected an echo");
            }
            assert_eq!(proxy.access_lines(number + 1)[number]["route"], *route, "{name}");
            let file = proxy.directory().join("acequia.toml");
            let output = must(acequia(&["route", "--listener", "l", "--sni", name, "-c"]).arg(file));
            assert!(output.contains(&format!("\nroute {route}: ")), "{name}: {output}");
        }
    }
}

#[test]
fn a_refusing_route_matches_invalid_names_too() {
    let server = Server::echo();
    let config = |sni: &str| {
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
             [[listeners.l.routes]]\nname = \"closed\"\nsni = \"{sni}\"\nrefuse = true\n\
             [pools.p]\nservers = [\"{}\"]\n",
            server.address
        )
    };
    let long = format!("{}.internal.example.com", "a".repeat(64)); // a label may have 63 characters
    for (sni, names) in [
        (
            "*.internal.example.com",
            &["x!z.internal.example.com", "X!Z.Internal.example.COM.", &long][..],
        ),
        ("*", &["x!z", "a..b", "a b"]),
    ] {
        let proxy = Proxy::start(&config(sni));
        for (number, name) in names.iter().enumerate() {
            let answer = Client::connect(proxy.at("l"))
                .send(&Hello::named(name).bytes())
                .read_all();
            assert_eq!(answer.last(), Some(&112), "{name}: expected unrecognized_name");
            let line = &proxy.access_lines(number + 1)[number];
            assert_eq!((&line["ending"], &line["sni"]), (&"refused".into(), &(*name).into()));
            let file = proxy.directory().join("acequia.toml");
            let output = must(acequia(&["route", "--listener", "l", "--sni", name, "-c"]).arg(file));
            assert!(
                output.contains(&format!("closed  taken: sni matches {sni}\n")),
                "{output}"
            );
        }
        let literal = Hello::named("10.0.0.7").bytes();
        assert!(ask(proxy.at("l"), &literal) == literal, "an IP literal is no name");
    }
}
