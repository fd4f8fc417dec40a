//! Actions on the page: before an action the page asks once and says what the action will do; then it shows the answer.
//! The page sorts sessions and shows 50 at a time, soon shows a dead server, and has a strict security policy.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::api::{TOKEN, token};
use super::events::Events;
use super::page::{log_in, open, text};
use crate::support::api::{request, start, tcp, unix};
use crate::support::browser::Browser;
use crate::support::client::{Client, served_client};
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::{Server, list};
use crate::support::wait_for;

/// A button of the open dialog.
fn button(label: &str) -> String {
    format!("[...document.querySelectorAll('dialog[open] button')].find((one) => one.innerText === {label:?})")
}

/// Chooses an action in the open dialog, and checks that the page asks with these words, and does not say "Done." yet.
pub(super) fn choose(browser: &mut Browser, label: &str, words: &str) {
    browser.eventually(&format!("{} !== undefined", button(label)));
    browser.evaluate(&format!("{}.click()", button(label)));
    let question = wait_for(words, || {
        Some(text(browser, "#question")).filter(|question| question.contains(words))
    });
    assert!(!question.contains("Done."), "{label}: {question}");
}

/// Says yes, waits until the answer is shown, and closes the question; returns the answer.
fn confirm(browser: &mut Browser) -> String {
    browser.evaluate("document.querySelector('#question button.danger').click()");
    let answered = wait_for("an answer", || {
        Some(text(browser, "#question")).filter(|text| text.contains("Done.") || text.contains("Not done."))
    });
    browser.evaluate("document.getElementById('question').close()");
    answered
}

fn open_server(browser: &mut Browser, key: &str) {
    let row = format!("document.querySelector('#server-table [data-key={key:?}]')");
    browser.eventually(&format!("{row} !== null"));
    browser.evaluate(&format!("{row}.click()"));
}

#[test]
fn actions_ask_once_explain_themselves_and_show_the_answer() {
    let (_directory, line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], &line);
    let get = |path: &str| -> Value { serde_json::from_str(&tcp(&proxy, "GET", path, &[], "").1).unwrap() };
    let server = |key: &str| get("/api/v1/servers/shop/big")[key].clone();
    let mut browser = open(&proxy);
    log_in(&mut browser, TOKEN);
    for (label, words, usage) in [
        (
            "Disable",
            "shop/big gets no new sessions and is no longer checked.",
            "disabled",
        ),
        ("Enable", "shop/big gets new sessions again.", "enabled"),
    ] {
        let before = server("use");
        open_server(&mut browser, "shop/big");
        choose(&mut browser, label, words);
        assert_eq!(server("use"), before, "it has only asked");
        let answer = confirm(&mut browser);
        assert!(answer.contains(&format!("\"use\":{usage:?}")), "{answer}");
        assert_eq!(server("use"), usage);
    }
    open_server(&mut browser, "shop/big");
    browser.eventually("document.querySelector('#detail[open] input[type=number]') !== null");
    for wrong in ["", "257", "1.5"] {
        browser.evaluate(&format!(
            "document.querySelector('#detail[open] input[type=number]').value = {wrong:?}"
        ));
        browser.evaluate(&format!("{}.click()", button("Set weight")));
        let asks = browser.evaluate("document.getElementById('question').open");
        assert_eq!(asks, false, "{wrong:?} is no weight");
    }
    browser.evaluate("document.querySelector('#detail[open] input[type=number]').value = 7");
    choose(&mut browser, "Set weight", "shop/big gets weight 7 instead of 1.");
    assert!(confirm(&mut browser).contains("\"weight\":7"));
    assert_eq!(server("weight"), 7);

    let mut client = Client::connect(proxy.at("https"));
    browser.evaluate("document.getElementById('sessions').scrollIntoView()");
    browser.eventually("document.querySelector('#session-table button.danger') !== null");
    browser.evaluate("document.querySelector('#session-table button.danger').click()");
    browser.eventually("document.querySelector('#question').innerText.includes('is reset on both sides')");
    assert_eq!(get("/api/v1/sessions")["total"], 1);
    assert!(confirm(&mut browser).contains("Done."));
    client.must_be_reset();
    deny_a_network_and_reload(&mut browser, &proxy);
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn open_details_follow_what_happens_and_keep_what_is_typed() {
    let (_directory, line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], &line);
    let set = |body: &str| assert_eq!(unix(&proxy, "POST", "/api/v1/servers/shop/big", body).0, 200);
    let shows = |part: &str| format!("document.querySelector('#detail[open]').innerText.includes({part:?})");
    let mut browser = open(&proxy);
    log_in(&mut browser, TOKEN);
    open_server(&mut browser, "shop/big");
    browser.eventually(&format!("{} !== undefined", button("Drain")));
    browser.evaluate("document.querySelector('#detail input').value = 9");
    browser.evaluate(&format!("{}.focus()", button("Drain")));
    set("{\"use\":\"draining\"}");
    browser.eventually(&shows("↓ draining"));
    let focused = browser.evaluate("document.activeElement.innerText");
    assert_eq!(focused, "Close", "the button that had the focus is gone");
    assert_eq!(browser.evaluate("document.querySelector('#detail input').value"), "9");
    choose(&mut browser, "Enable", "gets new sessions again");
    confirm(&mut browser);
    browser.evaluate("document.getElementById('p:shop').click()");
    browser.eventually(&shows("2 of 2 servers up"));
    let file = proxy.directory().join("acequia.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(
        &file,
        config
            .replace("shop\"", "store\"")
            .replace("[pools.shop]", "[pools.store]"),
    )
    .unwrap();
    assert_eq!(unix(&proxy, "POST", "/api/v1/reload", "").0, 200);
    browser.eventually(&shows("There is no such pool any more."));
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

fn deny_a_network_and_reload(browser: &mut Browser, proxy: &Proxy) {
    browser.evaluate("document.getElementById('l:https').click()");
    choose(browser, "Deny a network in fair", "New sessions from the network");
    browser.evaluate(
        "[...document.querySelectorAll('#question input')].forEach((one, at) => { one.value = ['198.51.100.0/24', '10m'][at]; })",
    );
    let answer = confirm(browser);
    assert!(answer.contains("198.51.100.0/24"), "{answer}");
    let guard = tcp(proxy, "GET", "/api/v1/guards/fair", &[], "").1;
    assert!(guard.contains("198.51.100.0/24"), "{guard}");
    let file = proxy.directory().join("acequia.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, config.replace("name = \"small\"", "name = \"tiny\"")).unwrap();
    browser.evaluate("document.getElementById('reload').focus()");
    browser.evaluate("document.getElementById('reload').click()");
    browser.eventually("document.querySelector('#question').innerText.includes('The file is read and checked.')");
    let state = || tcp(proxy, "GET", "/api/v1/state", &[], "").1;
    assert!(state().contains("\"small\""), "it has only asked");
    assert!(confirm(browser).contains("Done."));
    assert!(state().contains("\"tiny\""));
    browser.evaluate("document.querySelector('#question').close()");
    browser.eventually("document.activeElement.id === 'reload'");
    browser.eventually("document.querySelector('#server-table').innerText.includes('shop/tiny')");
}

#[test]
fn sessions_are_sorted_and_paged() {
    const SESSIONS: usize = 60; // ten more than a page has
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.plain]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [{}]",
        list(&[&server])
    ));
    let mut clients: Vec<_> = (0..SESSIONS).map(|_| served_client(proxy.at("plain"))).collect();
    let bulk = vec![7; 100_000];
    clients[33].send(&bulk).read(bulk.len());
    let busiest = clients[33].0.local_addr().unwrap().to_string();
    let mut browser = open(&proxy);
    browser.evaluate("document.getElementById('sessions').scrollIntoView()");
    let busiest_is_first =
        format!("document.querySelector('#session-table tbody tr')?.innerText.includes({busiest:?})");
    browser.eventually(&busiest_is_first);
    assert!(text(&mut browser, "#session-pages").contains("1 to 50 of 60"));
    let rows = "document.querySelectorAll('#session-table tbody tr').length";
    assert_eq!(browser.evaluate(rows), 50);
    let click = |browser: &mut Browser, place: &str, label: &str| {
        browser.evaluate(&format!(
            "[...document.querySelectorAll('{place} button')].find((one) => one.innerText.startsWith({label:?})).click()"
        ));
    };
    click(&mut browser, "#session-pages", "Next");
    assert_eq!(browser.evaluate(rows), 10);
    assert!(text(&mut browser, "#session-pages").contains("51 to 60 of 60"));
    click(&mut browser, "#session-table th", "From server");
    let busiest_is_last =
        format!("[...document.querySelectorAll('#session-table tbody tr')].at(-1).innerText.includes({busiest:?})");
    assert_eq!(browser.evaluate(&busiest_is_last), true, "the fewest bytes come first");
    click(&mut browser, "#session-table th", "Session");
    let sorted = "document.querySelector('#session-table th[aria-sort]').innerText";
    assert!(browser.evaluate(sorted).as_str().unwrap().starts_with("Session"));
    click(&mut browser, "#session-pages", "Previous");
    let ids = browser
        .evaluate("[...document.querySelectorAll('#session-table tbody td:first-child')].map((one) => +one.innerText)");
    let ids: Vec<_> = ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    assert!(ids.len() == 50 && ids.is_sorted_by(|a, b| a > b), "{ids:?}");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

/// The seconds are counted in samples of the process and in timers of the page, and not by a clock of this test: on a
/// busy machine the samples and timers are late as well, so the load alone does not fail the test.
#[test]
fn a_killed_server_is_reported_within_two_seconds_and_red_a_second_later() {
    // The port is kept, so that no other program gets it when the server is killed.
    let (killed, other) = (Port::keep(), Server::echo());
    let server = Server::echo_on(Port::keep_again(killed.address).listen());
    let proxy = Proxy::start(&format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.plain]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [{}]\nhealth = {{ check = \"tcp\", interval = \"50ms\", rise = 1, fall = 1 }}",
        list(&[&server, &other])
    ));
    let mut browser = open(&proxy);
    browser.eventually("document.querySelectorAll('#server-table .good').length === 2");
    browser.evaluate("document.getElementById('servers').scrollIntoView()");
    // Each second, the page itself checks whether a server that it knows to be down is not red yet.
    browser.evaluate(
        "import('/state.js').then(({ known }) => { \
           globalThis.late = 0; \
           const look = () => { \
             const isDown = known.state.pools[0].servers.some((one) => one.health === 'down'); \
             if (isDown && !document.querySelector('#server-table .bad')) late += 1; \
             setTimeout(() => requestAnimationFrame(look), 1000); \
           }; \
           look(); \
         })",
    );
    let mut events = Events::open(&proxy);
    drop(server);
    let (since, seconds) = seconds_until_down_is_reported(&mut events);
    assert!(seconds <= 2, "down since {since}, reported after {seconds} seconds");
    browser.eventually("document.querySelector('#server-table .bad')?.innerText.includes('down')");
    // The first look may come just before the page draws the server in red. The next look is a second later.
    let late = browser.evaluate("late").as_u64().unwrap();
    assert!(late <= 1, "a second after the event, the page had not drawn it");
    let state = tcp(&proxy, "GET", "/api/v1/state", &[], "").1;
    assert_eq!(state.matches("\"health\":\"down\"").count(), 1, "{state}");
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

/// Waits for the first event that reports a server as down. Returns the time since which it is down, and the number of
/// samples, one a second, that have come after that time.
fn seconds_until_down_is_reported(events: &mut Events) -> (String, usize) {
    let mut sample_times = Vec::new();
    loop {
        let (name, data) = events.next_any();
        let servers = match &*name {
            "sample" => {
                sample_times.push(data["at"].as_str().unwrap().to_owned());
                continue;
            }
            "state" => &data["pools"][0]["servers"],
            // A pool that has changed is sent with all its servers; otherwise only the changed servers are sent.
            _ if data["pools"][0].is_object() => &data["pools"][0]["servers"],
            _ => &data["servers"]["p"],
        };
        let mut servers = servers.as_array().into_iter().flatten();
        if let Some(down) = servers.find(|server| server["health"] == "down") {
            let since = down["since"].as_str().unwrap().to_owned();
            let seconds = sample_times.iter().filter(|time| **time > since).count();
            return (since, seconds);
        }
    }
}

#[test]
fn the_page_and_its_files_have_a_strict_security_policy() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.svg", "image/svg+xml"),
    ] {
        let mut stream = TcpStream::connect(proxy.admin()).unwrap();
        let close = "Connection: close";
        stream.write_all(request("GET", path, &[close], "").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let head = answer.split_once("\r\n\r\n").unwrap().0;
        let mut headers: Vec<_> = head.lines().skip(1).collect();
        headers.retain(|line| !line.starts_with("date: ") && !line.starts_with("content-length: "));
        headers.sort_unstable();
        let expected = [
            "cache-control: no-cache",
            "connection: close",
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            &format!("content-type: {kind}"),
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
        ];
        assert_eq!(headers, expected, "{path}");
    }
}
