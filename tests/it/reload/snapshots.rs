//! During a reload a session sees the old configuration or the new one, never a mixture.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::scope;

use crate::support::client::ask;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::stop::StopOnDrop;

#[test]
fn no_session_is_refused_that_neither_configuration_refuses() {
    let servers = [Server::named("one"), Server::named("two")];
    // Between the two everything changes its name and its place: routes, pools, which server is whose.
    let text = |n: usize| {
        let [a, b] = [&servers[n % 2].address, &servers[(n + 1) % 2].address];
        format!(
            "[listeners.l]\nbind = \"127.0.0.1:0\"\n\
             [[listeners.l.routes]]\nname = \"a{n}\"\nsni = \"a.example\"\npool = \"a{n}\"\n\
             [[listeners.l.routes]]\nname = \"rest{n}\"\nsni = \"*.example\"\npool = \"rest{n}\"\n\
             [pools.a{n}]\nservers = [\"{a}\"]\n[pools.rest{n}]\nservers = [\"{b}\"]\n"
        )
    };
    let proxy = Proxy::start(&text(0));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    scope(|all| {
        let _stop = StopOnDrop(&stop);
        for name in ["a.example", "b.example", "a.example"] {
            let (proxy, stop, served) = (&proxy, &stop, &served);
            all.spawn(move || {
                let hello = Hello::named(name).bytes();
                while !stop.load(SeqCst) {
                    let answer = ask(proxy.at("l"), &hello);
                    assert!(answer == b"one" || answer == b"two", "{name}: {answer:?}");
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for n in 1..=50 {
            let before = served.load(SeqCst);
            assert!(proxy.reload(&text(n % 7)));
            eventually("some are served by it", || served.load(SeqCst) > before + 2);
        }
    });
    let stopped = proxy.stop();
    // What a session was told belongs together.
    for line in &stopped.access {
        assert_eq!(line["ending"], "client_closed", "{line}");
        assert_eq!(line["route"], line["pool"], "{line}");
        let n: usize = line["pool"]
            .as_str()
            .unwrap()
            .trim_start_matches(char::is_alphabetic)
            .parse()
            .unwrap();
        let is_a = line["sni"] == "a.example";
        let server = &servers[(n + usize::from(!is_a)) % 2];
        assert_eq!(line["server"], server.address.to_string(), "{line}");
    }
}
