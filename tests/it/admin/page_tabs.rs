//! Many tabs of one browser share one stream: a browser opens at most six connections to a host.

use super::api::{TOKEN, token};
use super::page::{log_in, submit_token};
use crate::support::api::config;
use crate::support::browser::Browser;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// More than the connections that a browser opens to a host.
const TABS: usize = 8;

/// If the admin port is not on a loopback address, reading needs the token.
const READING_NEEDS_TOKEN: &str = "bind = \"0.0.0.0:0\"";

/// The condition that the page has this word as the state of its connection.
fn badge(word: &str) -> String {
    format!("document.getElementById('connection')?.textContent === {word:?}")
}

#[test]
fn many_tabs_stay_live_if_reading_needs_the_token() {
    let (_directory, token_line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let admin = format!("{READING_NEEDS_TOKEN}\nhosts = [\"lb.test\"]\n{token_line}");
    let proxy = Proxy::start(&config(&[&a, &b], &admin));
    let port = proxy.admin().port();
    // The tabs of each host share a stream, which one tab opens. At the first host, that is the tab that gets a lock.
    // At the second host there are no locks, and the tabs elect one tab: browsers offer locks only over TLS and on
    // loopback hosts.
    for host in ["127.0.0.1", "lb.test"] {
        let url = format!("http://{host}:{port}/");
        let arguments = ["--host-resolver-rules=MAP lb.test 127.0.0.1".to_owned()];
        let mut browser = Browser::open_with(&arguments, &url, 1280, 900);
        let mut tabs = vec![browser.tab()];
        while tabs.len() < TABS {
            tabs.push(browser.open_tab(&url));
        }
        for tab in &tabs {
            browser.show(tab);
            browser.eventually(&badge("token needed"));
            log_in(&mut browser, TOKEN);
        }
        for tab in &tabs {
            browser.show(tab);
            browser.eventually(&badge("live"));
            browser.eventually("document.querySelector('#tiles').innerText.includes('2 of 2')");
            browser.eventually("document.querySelector('#server-table button.plain') !== null");
            browser.evaluate("document.querySelector('#server-table button.plain').click()");
            browser.eventually("document.getElementById('detail').open");
        }
    }
}

#[test]
fn a_tab_with_a_stream_is_live_again_once_the_right_token_replaces_a_wrong_one() {
    let (_directory, token_line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = Proxy::start(&config(&[&a, &b], &format!("{READING_NEEDS_TOKEN}\n{token_line}")));
    let mut browser = Browser::open(&format!("http://127.0.0.1:{}/", proxy.admin().port()), 1280, 900);
    browser.eventually(&badge("token needed"));
    log_in(&mut browser, TOKEN);
    browser.eventually(&badge("live"));
    submit_token(&mut browser, "wrong");
    browser.eventually(&badge("token needed"));
    assert_eq!(proxy.command(&["server", "drain", "shop/big"]).code, Some(0));
    // The stream brings the change while the page shows nothing.
    browser.eventually("import('/state.js').then(({ known }) => JSON.stringify(known.state).includes('draining'))");
    log_in(&mut browser, TOKEN);
    browser.eventually(&badge("live"));
    browser.eventually("document.querySelector('#server-table').innerText.includes('draining')");
}
