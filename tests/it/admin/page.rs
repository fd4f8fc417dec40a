//! The page of the admin port, in a browser: it shows what the API says, and acts only with the token.

use super::api::{TOKEN, token};
use crate::support::api::{start, tcp};
use crate::support::browser::Browser;
use crate::support::client::Client;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

pub(super) fn open(proxy: &Proxy) -> Browser {
    let mut browser = Browser::open(&format!("http://{}/", proxy.admin()), 1280, 900);
    browser.eventually("document.getElementById('connection')?.textContent === 'live'");
    browser
}

pub(super) fn submit_token(browser: &mut Browser, token: &str) {
    browser.evaluate(&format!(
        "{{ document.getElementById('token').value = {token:?}; document.getElementById('token-form').requestSubmit(); }}"
    ));
}

/// Submits a token, and waits until the page accepts it.
pub(super) fn log_in(browser: &mut Browser, token: &str) {
    submit_token(browser, token);
    browser.eventually("!document.getElementById('reload').hidden");
}

/// The text of an element of the page.
pub(super) fn text(browser: &mut Browser, selector: &str) -> String {
    let text = browser.evaluate(&format!("document.querySelector({selector:?})?.innerText ?? ''"));
    text.as_str().unwrap().to_owned()
}

#[test]
fn the_page_shows_sessions_servers_and_endings_and_the_browser_reports_no_error() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#flow').innerText.includes('✓ up')");
    let flow = text(&mut browser, "#flow");
    for part in ["https", "insiders", "shop", "big", "small"] {
        assert!(flow.contains(part), "{part}: {flow}");
    }
    let clients: Vec<_> = (0..3).map(|_| Client::connect(proxy.at("https"))).collect();
    browser.eventually("document.querySelector('#tiles').innerText.includes('3 so far')");
    drop(clients);
    browser.evaluate("document.getElementById('endings').scrollIntoView()");
    browser.eventually("document.querySelector('#ending-table').innerText.includes('client_left_early')");
    let table = text(&mut browser, "#ending-table");
    assert!(table.contains("The client closed before its PROXY header"), "{table}");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}

#[test]
fn the_page_shows_a_server_that_goes_down() {
    let (a, b) = (Server::echo(), Server::echo());
    let config = crate::support::api::config(&[&a, &b], "bind = \"127.0.0.1:0\"");
    let proxy = Proxy::start(&format!(
        "{config}\nhealth = {{ check = \"tcp\", interval = \"50ms\", rise = 1, fall = 1 }}"
    ));
    let mut browser = open(&proxy);
    browser.eventually("document.querySelectorAll('#server-table .good').length === 2");
    drop(b);
    browser.evaluate("document.getElementById('servers').scrollIntoView()");
    browser.eventually("document.querySelector('#server-table .bad')?.innerText.includes('down')");
    browser.eventually("document.querySelector('#tiles').innerText.includes('1 of 2')");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}

#[test]
fn the_flow_follows_the_sessions_of_routes() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut browser = open(&proxy);
    browser.eventually("document.getElementById('r:https:insiders')?.innerText.includes('0 sessions, 0 so far')");
    assert_eq!(
        browser.evaluate("document.querySelectorAll('#flow path.busy').length"),
        0
    );
    let hello = Hello::named("shop.example.com").alpn(&["h2"]).bytes();
    let mut client = Client::connect(proxy.at("https"));
    client.send(&hello).read(hello.len());
    browser.eventually("document.getElementById('r:https:insiders').innerText.includes('1 session, 1 so far')");
    // From the listener to the route, to the pool, to the server.
    browser.eventually("document.querySelectorAll('#flow path.busy').length === 3");
    drop(client);
    browser.eventually("document.getElementById('r:https:insiders').innerText.includes('0 sessions, 1 so far')");
    browser.evaluate("document.getElementById('p:shop').click()");
    browser.eventually("document.querySelector('#detail').innerText.includes('Connect p99\\n')");
}

#[test]
fn the_page_shows_the_database_and_user_of_a_postgresql_session() {
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.pg]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n\
         [[listeners.pg.routes]]\nname = \"shop\"\ndatabase = \"shop\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    ));
    let mut startup = b"\0\0\0\0\0\x03\0\0user\0<b>\xe2\x80\xaebob\0database\0shop\0\0".to_vec();
    startup[3] = startup.len() as u8;
    let mut client = Client::connect(proxy.at("pg"));
    client.send(&startup).read(startup.len());
    let mut browser = open(&proxy);
    browser.evaluate("document.getElementById('sessions').scrollIntoView()");
    browser.eventually("document.querySelector('#session-table').innerText.includes('<b>\\\\u{202e}bob')");
    let table = text(&mut browser, "#session-table");
    assert!(table.contains("Database") && table.contains("pg shop"), "{table}");
}

#[test]
fn the_page_explains_which_route_a_connection_would_take() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#route-listener')?.value === 'https'");
    browser.evaluate(
        "{ const form = document.getElementById('route-form'); form.elements.sni.value = 'x.internal.example.com'; \
         form.requestSubmit(); }",
    );
    browser.eventually("document.querySelector('#route-answer').innerText.includes('It is refused.')");
    let answer = text(&mut browser, "#route-answer");
    assert!(answer.contains("sni matches *.internal.example.com"), "{answer}");
    assert!(answer.contains("Guards\nfair"), "{answer}");
}

#[test]
fn the_page_explains_a_route_of_postgresql_for_a_database_and_user() {
    let proxy = Proxy::start(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.pg]\nbind = \"127.0.0.1:0\"\nprotocol = \"postgres\"\n\
         accept_proxy = { from = [\"10.0.0.0/8\"], others = \"refuse\" }\n\
         [[listeners.pg.routes]]\nname = \"orders\"\ndatabase = \"orders\"\nuser = \"clerk\"\npool = \"p\"\n\
         [pools.p]\nservers = [\"127.0.0.1:9\"]",
    );
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#route-listener')?.value === 'pg'");
    for (user, peer, expected) in [
        ("clerk", "10.0.0.1", "It goes to pool p by route orders."),
        ("guest", "10.0.0.1", "It is refused."),
        ("clerk", "192.0.2.1", "is refused: the listener does not trust it"),
    ] {
        browser.evaluate(&format!(
            "{{ const form = document.getElementById('route-form'); form.elements.database.value = 'orders'; \
             form.elements.user.value = {user:?}; form.elements.peer.value = {peer:?}; form.requestSubmit(); }}"
        ));
        browser.eventually(&format!(
            "document.querySelector('#route-answer').innerText.includes({expected:?})"
        ));
    }
}

#[test]
fn counts_from_10000_are_shown_with_three_significant_digits_and_a_suffix() {
    let proxy = start(&[&Server::echo(), &Server::echo()], "");
    let shown = open(&proxy).evaluate(
        "import('/dom.js').then(({ count }) => \
         [9999, 12345, 999499, 999999, 1e6, 999.6e12, Number.MAX_SAFE_INTEGER].map(count).join(' '))",
    );
    assert_eq!(shown, "9,999 12.3k 999k 1.00M 1.00M 1.00P 9.01P");
}

#[test]
fn rounding_shows_1_s_not_1000_ms_and_100_kib_not_100_0_kib() {
    let proxy = start(&[&Server::echo(), &Server::echo()], "");
    let mut browser = open(&proxy);
    let shown = browser.evaluate(
        "import('/dom.js').then(({ bytes, duration }) => \
         [[0.0009994, 0.0009996, 0.0123, 0.9994, 0.9996, 1, 61].map(duration), [1023, 1024 * 99.97].map(bytes)].flat().join(', '))",
    );
    assert_eq!(
        shown,
        "999 µs, 1 ms, 12.3 ms, 999 ms, 1 s, 1 s, 1 min 1 s, 1023 B, 100 KiB"
    );
}

#[test]
fn without_a_token_the_page_is_read_only_and_says_how_to_change_that() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#access').innerText.includes('token_file')");
    browser.eventually("document.querySelector('#server-table button.plain') !== null");
    browser.evaluate("document.querySelector('#server-table button.plain').click()");
    browser.eventually("document.querySelector('#detail')?.open === true");
    let detail = text(&mut browser, "#detail");
    assert!(
        detail.contains("Address\n127.0.0.1:") && !detail.contains("[object"),
        "{detail}"
    );
    let enabled_buttons =
        browser.evaluate("[...document.querySelectorAll('#detail button')].filter((one) => !one.disabled).length");
    assert_eq!(enabled_buttons, 1, "only `Close`");
}

#[test]
fn with_the_token_the_page_drains_a_server_but_the_browser_does_not_store_the_token() {
    let (_directory, token_setting) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], &token_setting);
    let mut browser = open(&proxy);
    let drain = |browser: &mut Browser| {
        browser.eventually("document.querySelector('#server-table button.plain') !== null");
        browser.evaluate("document.querySelector('#server-table button.plain').click()");
        let button = "[...document.querySelectorAll('dialog[open] button')].find((one) => one.innerText === 'Drain')";
        browser.eventually(&format!("{button} !== undefined"));
        browser.evaluate(&format!("{button}.click()"));
        let question = wait_for("a question", || {
            Some(text(browser, "#question")).filter(|text| text.contains("gets no new sessions"))
        });
        assert!(question.contains("shop/big"), "{question}");
        browser.evaluate("document.querySelector('#question button.danger').click()");
    };
    let server_state = || tcp(&proxy, "GET", "/api/v1/servers/shop/big", &[], "").1;
    for wrong in ["wrong", "schlüssel☃"] {
        submit_token(&mut browser, wrong);
        browser.eventually("document.querySelector('#access').innerText.startsWith('Not accepted: wrong token')");
        assert_eq!(browser.evaluate("document.getElementById('reload').hidden"), true);
        submit_token(&mut browser, "");
        browser.eventually("document.querySelector('#access').innerText.startsWith('Read-only until')");
    }
    log_in(&mut browser, TOKEN);
    drain(&mut browser);
    browser.eventually("document.querySelector('#question').innerText.includes('Done.')");
    eventually("the server drains", || server_state().contains("\"use\":\"draining\""));
    browser.evaluate("document.getElementById('question').close()");
    browser.evaluate("document.getElementById('servers').scrollIntoView()");
    browser.eventually("document.querySelector('#server-table .warn')?.innerText.includes('draining')");
    let stored = browser.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])");
    assert!(!stored.to_string().contains(TOKEN), "{stored}");
}

#[test]
fn a_reload_error_is_shown_only_with_the_token() {
    let (_directory, token_setting) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], &token_setting);
    let file = proxy.directory().join("acequia.toml");
    std::fs::write(&file, "wrong = [").unwrap();
    let authorization = &*format!("Authorization: Bearer {TOKEN}");
    assert_eq!(tcp(&proxy, "POST", "/api/v1/reload", &[authorization], "").0, 422);
    assert_eq!(tcp(&proxy, "GET", "/api/v1/reload", &[], "").0, 401);
    let (status, error) = tcp(&proxy, "GET", "/api/v1/reload", &[authorization], "");
    assert!(status == 200 && error.contains("unclosed array"), "{error}");
    let state = tcp(&proxy, "GET", "/api/v1/state", &[], "").1;
    assert!(!state.contains("unclosed"), "{state}");
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#notices').innerText.includes('The last reload failed.')");
    let tiles = text(&mut browser, "#tiles");
    assert!(
        tiles.contains("Config in force\n") && tiles.contains("✕ reload failed"),
        "{tiles}"
    );
    log_in(&mut browser, TOKEN);
    browser.eventually("document.querySelector('#notices pre')?.innerText.includes('unclosed array')");
}
