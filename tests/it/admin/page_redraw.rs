//! The page is drawn anew each second. That must not disturb what the user is doing, and what the user is doing must
//! not stop the drawing. Other tests are of a replaced token, an old history, the notices, and the section "Flow" with
//! many listeners.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::api::{TOKEN, token};
use super::page::{log_in, open, submit_token, text};
use super::page_acts::choose;
use crate::support::api::{start, unix};
use crate::support::browser::Browser;
use crate::support::client::{Client, served_client};
use crate::support::proxy::Proxy;
use crate::support::server::{Server, list};

/// Presses or releases the left button of the mouse over an element.
fn mouse(browser: &mut Browser, event_type: &str, selector: &str) {
    let center = format!(
        "(() => {{ const box = document.querySelector({selector:?}).getBoundingClientRect(); \
         return [(box.left + box.right) / 2, (box.top + box.bottom) / 2]; }})()"
    );
    let center = browser.evaluate(&center);
    let event = json!({ "type": event_type, "x": center[0], "y": center[1], "button": "left", "clickCount": 1 });
    browser.ask("Input.dispatchMouseEvent", &event);
}

#[test]
fn a_click_a_selection_and_the_focus_survive_a_redraw() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let set = |usage: &str| {
        let body = format!("{{\"use\":{usage:?}}}");
        assert_eq!(unix(&proxy, "POST", "/api/v1/servers/shop/big", &body).0, 200);
    };
    let mut browser = open(&proxy);
    let server = "#flow [id='s:shop/big']";
    browser.eventually(&format!(
        "document.querySelector({server:?})?.innerText.includes('✓ up')"
    ));
    mouse(&mut browser, "mousePressed", server);
    set("draining");
    browser.eventually(&format!(
        "document.querySelector({server:?}).innerText.includes('↓ draining')"
    ));
    mouse(&mut browser, "mouseReleased", server);
    browser.eventually("document.getElementById('detail').innerText.includes('Server shop/big')");

    browser.evaluate("getSelection().selectAllChildren(document.querySelector('#detail h2'))");
    let close = "document.querySelector('#detail [data-key=close]')";
    browser.evaluate(&format!("{close}.focus()"));
    set("enabled");
    browser.eventually("document.getElementById('detail').innerText.includes('✓ up')");
    assert_eq!(browser.evaluate("getSelection().toString()"), "Server shop/big");
    assert_eq!(browser.evaluate(&format!("document.activeElement === {close}")), true);
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn the_table_of_sessions_is_updated_while_the_focus_is_in_it() {
    let (_directory, line) = token();
    let server = Server::echo();
    let proxy = Proxy::start(&format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n{line}\n[listeners.plain]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nservers = [{}]",
        list(&[&server])
    ));
    let (first, mut second) = (served_client(proxy.at("plain")), served_client(proxy.at("plain")));
    let mut browser = open(&proxy);
    log_in(&mut browser, TOKEN);
    // Scrolls at each attempt, because the section moves until the sections above it have been drawn.
    let has_buttons = |count: usize| {
        format!(
            "document.getElementById('sessions').scrollIntoView(), \
             document.querySelectorAll('#session-table button.danger').length === {count}"
        )
    };
    browser.eventually(&has_buttons(2));
    let client = second.0.local_addr().unwrap().to_string();
    let row = format!(
        "[...document.querySelectorAll('#session-table tbody tr')].find((one) => one.innerText.includes({client:?}))"
    );
    browser.evaluate(&format!("{row}.querySelector('button').focus()"));
    drop(first);
    browser.eventually(&has_buttons(1));
    assert_eq!(
        browser.evaluate(&format!("{row}.contains(document.activeElement)")),
        true,
        "the focus stays with its session"
    );
    browser.evaluate("document.activeElement.click()");
    browser.eventually("document.querySelector('#question').innerText.includes('is reset on both sides')");
    browser.evaluate("document.querySelector('#question button.danger').click()");
    second.must_be_reset();
    browser.eventually(&has_buttons(0));
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}

#[test]
fn a_replaced_token_is_forgotten_and_a_token_file_that_cannot_be_read_is_reported() {
    let (directory, line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], &line);
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#server-table button.plain') !== null");
    log_in(&mut browser, TOKEN);
    // The page checks the token on several occasions, one check at a time. This check ends after all pending ones, so
    // that `Drain` is the first to find that the token was replaced.
    browser.evaluate("import('/page.js').then(({ showAccess }) => showAccess())");
    let file = directory.path().join("token");
    fs::write(&file, "another one that is long enough\n").unwrap();
    browser.evaluate("document.querySelector('#server-table button.plain').click()");
    choose(&mut browser, "Drain", "gets no new sessions");
    browser.evaluate("document.querySelector('#question button.danger').click()");
    browser.eventually("document.querySelector('#question').innerText.includes('Not done. wrong token')");
    browser.eventually("document.getElementById('reload').hidden");
    assert!(text(&mut browser, "#access").contains("Not accepted: wrong token. Read-only until"));
    browser.evaluate("document.getElementById('question').close()");

    fs::write(&file, TOKEN).unwrap();
    log_in(&mut browser, TOKEN);
    fs::write(&file, "another one that is long enough\n").unwrap();
    let config = proxy.directory().join("acequia.toml");
    fs::write(&config, fs::read_to_string(&config).unwrap() + "\nnonsense = 1\n").unwrap();
    proxy.signal(Signal::HUP);
    browser
        .eventually("document.querySelector('#notices').innerText.includes('Enter the token to see the errors here')");
    browser.eventually("document.getElementById('reload').hidden");
    fs::remove_file(&file).unwrap();
    submit_token(&mut browser, TOKEN);
    browser.eventually("document.getElementById('access').innerText.includes('cannot read `token_file` of [admin]')");
}

#[test]
fn after_a_long_time_in_the_background_the_history_is_read_again() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut browser = open(&proxy);
    drop(Client::connect(proxy.at("https")));
    let hour = "document.querySelector('#ending-table tbody td:nth-child(3)')?.innerText";
    // Scrolls at each attempt, because the section moves until the sections above it have been drawn.
    browser.eventually(&format!(
        "document.getElementById('endings').scrollIntoView(), {hour} === '1'"
    ));
    browser.evaluate(
        "Promise.all([import('/state.js'), import('/lists.js')]).then(([{ known }, { showEndings }]) => { \
           known.historyReadAt = 0; showEndings(); })",
    );
    // An old history is not shown. It is read again after a minute, or when the tab is shown.
    assert_eq!(browser.evaluate(hour), "–");
    browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))");
    browser.eventually(&format!("{hour} === '1'"));
}

#[test]
fn notices_report_the_store_and_unsaved_files() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#flow').innerText.includes('✓ up')");
    let notices = browser.evaluate(
        "Promise.all([import('/state.js'), import('/overview.js')]).then(([{ apply, known }, { showOverview }]) => { \
           const at = new Date().toISOString(); \
           const remote = { from: 'etcd:/edge', revision: 7, refused: { revision: 9, since: at }, lost: '<b>refused</b>', lost_since: at }; \
           const none = { listeners: {}, routes: {}, pools: [], servers: {}, sessions: {} }; \
           apply('changes', { ...known.state, ...none, remote, unsaved: ['/state/x: disk full'] }); \
           showOverview(); \
           return document.getElementById('notices').innerText; })",
    );
    let notices = notices.as_str().unwrap();
    for part in [
        "etcd:/edge has not answered since",
        "<b>refused</b>. Meanwhile revision 7 stays in force.",
        "Revision 9 of etcd:/edge was refused",
        "Not saved, and lost at a restart: /state/x: disk full.",
    ] {
        assert!(notices.contains(part), "{part}: {notices}");
    }
}

#[test]
fn the_worst_notices_come_first() {
    let server = Server::echo();
    let proxy = start(&[&server], "");
    let mut browser = open(&proxy);
    browser.eventually("document.querySelector('#flow').innerText.includes('✓ up')");
    let notices = browser.evaluate(
        "Promise.all([import('/state.js'), import('/overview.js')]).then(([{ known }, { showOverview }]) => { \
           known.state.unsaved = Array.from({ length: 14 }, (_, at) => `file ${at}`); \
           known.state.pools[0].usable = false; \
           showOverview(); \
           return [...document.getElementById('notices').children].map((one) => `${one.className}: ${one.innerText}`); })",
    );
    let notices: Vec<_> = notices
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    assert_eq!(notices.len(), 13); // 12 of 15 notices, and one that counts the other 3
    assert!(
        notices[0].starts_with("notice bad: Pool shop has no usable server"),
        "{notices:?}"
    );
    assert_eq!(notices[12], "notice warn: And 3 more notices.");
}

#[test]
fn of_many_listeners_and_pools_each_can_be_found_in_the_flow() {
    let server = Server::echo();
    let address = server.address;
    let listener = |number: usize| {
        format!(
            "[listeners.l{number:02}]\nbind = \"127.0.0.1:0\"\npool = \"p{number:02}\"\nmax_connections = 1\n\
             [pools.p{number:02}]\nservers = [\"{address}\"]\nhealth.check = \"off\"\n"
        )
    };
    let sections: String = (0..20).map(listener).collect();
    let proxy = Proxy::start(&format!("[admin]\nbind = \"127.0.0.1:0\"\n{sections}"));
    let mut browser = open(&proxy);
    let column = |at: usize| format!("document.querySelector('#flow-chart > div:nth-of-type({at})')?.innerText");
    browser.eventually(&format!("{}?.includes('and 4 more')", column(1)));
    assert_eq!(browser.evaluate(&format!("{}.includes('l18')", column(1))), false);
    // A listener that is full needs attention, so it is among those that are shown.
    let client = served_client(proxy.at("l18"));
    browser.eventually(&format!("/l18[^]*1 of 1 sessions, full/.test({})", column(1)));
    drop(client);
    // How many boxes of listeners, routes, pools and servers match.
    for (wanted, shown) in [("P19", [0, 1, 1, 1]), ("l07", [1, 1, 0, 0])] {
        browser.evaluate(&format!(
            "{{ const field = document.getElementById('flow-filter'); field.value = {wanted:?}; \
             field.dispatchEvent(new Event('input')); }}"
        ));
        let counts =
            "[...document.querySelectorAll('#flow-chart > div')].map((one) => one.querySelectorAll('button').length)";
        assert_eq!(browser.evaluate(counts), json!(shown), "{wanted}");
    }
    assert_eq!(browser.complaints(), Vec::<Value>::new());
}
