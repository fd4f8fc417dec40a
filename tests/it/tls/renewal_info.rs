//! The time of a renewal, as an ACME server suggests it (RFC 9773).

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::acme::{Site, listed, orders, wait_until_issued};
use crate::support::eventually;
use crate::support::pebble::Pebble;
use crate::support::proxy::Proxy;
use crate::support::renewal_info::RenewalServer;
use serde_json::Value;

const HOUR: i64 = 3600;

/// The time this many seconds from now, in the format of RFC 3339.
fn from_now(seconds: i64) -> String {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let now = SystemTime::now();
    let at = if seconds < 0 { now - distance } else { now + distance };
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A response that suggests the window between these times.
fn window(start: &str, end: &str, retry_after: &str) -> Vec<u8> {
    window_with(&format!("Retry-After: {retry_after}\r\n"), start, end)
}

/// As [`window`]. `header` is the whole `Retry-After` line, or empty.
fn window_with(header: &str, start: &str, end: &str) -> Vec<u8> {
    let window = format!("{{\"start\": \"{start}\", \"end\": \"{end}\"}}");
    let body = format!("{{\"suggestedWindow\": {window}, \"explanationURL\": \"https://ca.example/why\"}}");
    response(header, &body)
}

fn response(header: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\n{header}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A proxy whose orders go to this server.
fn start(site: &Site, pebble: &Pebble, server: &RenewalServer) -> Proxy {
    Proxy::start(&config(site, pebble, server))
}

/// The configuration of [`start`].
fn config(site: &Site, pebble: &Pebble, server: &RenewalServer) -> String {
    let config = site.config(pebble, "", &["shop.example"]);
    let [old, new] = [pebble.address().port(), server.port()].map(|port| format!("https://localhost:{port}/dir"));
    assert!(config.contains(&old));
    config.replace(&old, &new)
}

fn is_between(time: &Value, start: &str, end: &str) -> bool {
    // RFC 3339, in UTC: ordered as text.
    (start..end).contains(&time.as_str().unwrap())
}

#[test]
fn a_certificate_is_renewed_in_its_window_or_after_a_pause_if_the_window_is_over() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let (start_at, end_at) = (from_now(48 * HOUR), from_now(72 * HOUR));
    let first = std::sync::OnceLock::<String>::new();
    let future = window(&start_at, &end_at, "21600");
    let server = RenewalServer::new(&pebble, move |identifier| {
        let is_first = first.get_or_init(|| identifier.to_owned()) == identifier;
        Some(match is_first {
            true => window(&from_now(-2 * HOUR), &from_now(-HOUR), "21600"),
            false => future.clone(),
        })
    });
    // The window of the first certificate is over. But after an order there is a pause, which outlasts a restart.
    for _ in 0..2 {
        let proxy = start(&site, &pebble, &server);
        eventually("the server was asked", || {
            let certificate = listed(&proxy);
            certificate["self_signed"] == false && certificate["renewal"]["reason"] == "suggested"
        });
        let renewal = listed(&proxy)["renewal"].clone();
        assert!(
            is_between(&renewal["at"], &from_now(HOUR / 2), &from_now(2 * HOUR)),
            "a pause: {renewal}"
        );
    }
    // The pause begins at the modification time of the file.
    let file = File::open(site.state.path().join("shop.example.pem")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(2 * 3600))
        .unwrap();

    let proxy = start(&site, &pebble, &server);
    eventually("it is renewed", || orders(&proxy, "ok") == 1.0);
    let seen = server.seen();
    assert_eq!(seen.replaced, seen.asked[..1]);
    eventually("the window of the new one is known", || {
        let renewal = listed(&proxy)["renewal"].clone();
        renewal["reason"] == "suggested" && is_between(&renewal["at"], &start_at, &end_at)
    });
    assert_eq!((orders(&proxy, "ok"), orders(&proxy, "error")), (1.0, 0.0));
    let list = proxy.command(&["cert", "list"]).stdout;
    assert!(
        list.contains(", as the ACME server suggests: https://ca.example/why"),
        "{list}"
    );
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
}

/// A response with a problem document (RFC 8555, section 6.7). Header lines may follow the status in `status`.
fn refusal(status: &str, kind: &str) -> Vec<u8> {
    let body = format!("{{\"type\": \"urn:ietf:params:acme:error:{kind}\", \"detail\": \"no\"}}");
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[test]
fn an_order_whose_replaces_field_is_refused_is_repeated_without_it_unless_orders_are_limited() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let window = window(&from_now(48 * HOUR), &from_now(72 * HOUR), "21600");
    let start_refusing = |refusal| {
        let window = window.clone();
        RenewalServer::refusing(&pebble, move |_| Some(window.clone()), Some(refusal))
    };
    let server = start_refusing(refusal("409 Conflict", "alreadyReplaced"));
    let proxy = start(&site, &pebble, &server);
    wait_until_issued(&proxy);
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("it is renewed all the same", || orders(&proxy, "ok") == 2.0);
    // The first order, the refused one and its repetition.
    assert_eq!((server.seen().replaced.len(), server.seen().orders), (1, 3));
    drop((proxy, server));

    let server = start_refusing(refusal("429 Too Many Requests\r\nRetry-After: 7200", "rateLimited"));
    change_account_directory(&site, &pebble, &server);
    let proxy = start(&site, &pebble, &server);
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("the order fails", || orders(&proxy, "error") == 1.0);
    eventually("the next one waits as the server wants", || {
        let renewal = listed(&proxy)["renewal"].clone();
        renewal["failures"] == 1 && renewal["at"].as_str() > Some(&*from_now(HOUR))
    });
    assert_eq!(
        (server.seen().replaced.len(), server.seen().orders),
        (1, 1),
        "expected no repetition"
    );
}

/// Its `Retry-After` is `u64::MAX`.
const BAD_GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nRetry-After: 18446744073709551615\r\nContent-Type: text/html\r\n\
                           Content-Length: 0\r\n\r\n";

/// No renewal is due by itself: Pebble issues certificates for five years.
#[test]
fn invalid_renewal_answers_change_nothing() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let without_renewal_info = Proxy::start(&site.config(&pebble, "", &["shop.example"]));
    wait_until_issued(&without_renewal_info);
    let expected = listed(&without_renewal_info)["renewal"].clone();
    assert_eq!(expected["reason"], "lifetime");
    let list = without_renewal_info.command(&["cert", "list"]).stdout;
    assert!(list.contains(", two thirds of its lifetime are over then"), "{list}");
    drop(without_renewal_info);

    let (past, past_end) = (from_now(-2 * HOUR), from_now(-HOUR));
    let huge = " ".repeat(2 << 20);
    for answer in [
        response("Retry-After: 60\r\n", "certainly"),
        response("Retry-After: 60\r\n", "{}"),
        response("Retry-After: 60\r\n", &huge),
        response("", "{}"),
        window(&past_end, &past, "60"),
        window(&past, &past, "60"),
        window("yesterday", &past_end, "60"),
        BAD_GATEWAY.as_bytes().to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        Vec::new(),
    ] {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
        let server = RenewalServer::new(&pebble, move |_| Some(answer.clone()));
        change_account_directory(&site, &pebble, &server);
        let proxy = start(&site, &pebble, &server);
        eventually("the failure is logged", || {
            let message = "the server does not say when to renew a certificate";
            let is_message = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
            let log = proxy.log();
            let Some(line) = log.iter().find(is_message) else {
                return false;
            };
            let error = line["error"].as_str().unwrap();
            assert_eq!(
                error.contains(" answers with status 502 Bad Gateway"),
                shown == BAD_GATEWAY,
                "{error}"
            );
            true
        });
        assert_eq!(listed(&proxy)["renewal"], expected, "{shown}");
        assert_eq!(orders(&proxy, "ok") + orders(&proxy, "error"), 0.0, "{shown}");
    }
}

/// Changes the directory URL in the kept account to that of this server. Otherwise the proxy would create a new
/// account.
fn change_account_directory(site: &Site, pebble: &Pebble, server: &RenewalServer) {
    let file = site.state.path().join("account.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut account = serde_json::from_str::<Value>(&text).unwrap();
    let directory = format!("https://localhost:{}/dir", server.port());
    assert!(pebble.address().port() != server.port());
    account["directory"] = directory.clone().into();
    account["credentials"]["directory"] = directory.into();
    std::fs::write(&file, account.to_string()).unwrap();
}

#[test]
fn orders_do_not_wait_for_renewal_answers() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let server = RenewalServer::new(&pebble, |_| None); // never answers about renewals
    let proxy = start(&site, &pebble, &server);
    eventually("the server was asked", || server.seen().asked.len() == 1);
    assert_eq!(listed(&proxy)["renewal"]["reason"], "lifetime");
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("a second certificate is ordered", || orders(&proxy, "ok") == 2.0);
    eventually("the server was asked about the second certificate, too", || {
        let asked = server.seen().asked;
        asked.last() != asked.first()
    });
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
}

#[test]
fn a_reload_does_not_ask_again_after_a_huge_or_missing_retry_after() {
    for header in [format!("Retry-After: {}\r\n", u64::MAX), String::new()] {
        let site = Site::new();
        let pebble = site.pebble().start();
        let (start_at, end_at) = (from_now(48 * HOUR), from_now(72 * HOUR));
        let answer = window_with(&header, &start_at, &end_at);
        let server = RenewalServer::new(&pebble, move |_| Some(answer.clone()));
        let proxy = start(&site, &pebble, &server);
        eventually("the window is known", || {
            let renewal = listed(&proxy)["renewal"].clone();
            renewal["reason"] == "suggested" && is_between(&renewal["at"], &start_at, &end_at)
        });
        assert!(proxy.reload(&config(&site, &pebble, &server)));
        proxy.answer(&["cert", "renew", "shop.example"]);
        eventually("the server is asked about the second certificate", || {
            let asked = server.seen().asked;
            asked.last() != asked.first()
        });
        assert_eq!(server.seen().asked.len(), 2, "once about each certificate");
    }
}
