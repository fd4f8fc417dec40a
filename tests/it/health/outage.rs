//! A pool without a usable server is logged once, with the reason for each server, and `/ready?pools=` reports it.

use serde_json::Value;

use crate::support::configs::{listener, pool};
use crate::support::database::Redis;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

#[test]
fn a_pool_without_a_usable_server_is_logged_once_and_is_not_ready() {
    let (mut dies, stays) = (Redis::start(), Server::echo());
    let health = "health = { interval = \"100ms\", rise = 1, fall = 1 }";
    let config = [
        listener("l", "orders", ""),
        listener("m", "other", ""),
        pool("orders", &[dies.address()], health),
        pool("other", &[stays.address], ""),
    ];
    let proxy = Proxy::start(&config.concat());
    let ready = |query: &str| proxy.get(&format!("/ready{query}"));
    assert_eq!(ready("?pools=orders,other"), (200, String::from("ready\n")));
    assert_eq!(ready("?pools=missing").0, 404);
    let logged = |message: &str| -> Vec<Value> {
        let all = proxy.log().into_iter();
        all.filter(|line| line["message"] == message).collect()
    };
    dies.kill();
    eventually("the outage is logged", || {
        !logged("pool has no usable server").is_empty()
    });
    assert_eq!(
        ready("?pools=orders,other"),
        (503, String::from("pool orders has no usable server\n"))
    );
    assert_eq!((ready("").0, ready("?pools=other").0), (200, 200));
    dies.restart();
    eventually("the end of the outage is logged", || {
        !logged("pool has a usable server again").is_empty()
    });
    assert_eq!(ready("?pools=orders").0, 200);
    let outages = logged("pool has no usable server");
    let [outage] = outages.as_slice() else {
        panic!("expected one line: {outages:?}");
    };
    let servers = outage["servers"].as_str().unwrap();
    let expected = format!("{}: unhealthy (Connection refused", dies.address());
    assert!(outage["pool"] == "orders" && servers.starts_with(&expected), "{outage}");
}
