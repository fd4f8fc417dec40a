//! Many tabs of one browser share one stream: a browser opens at most six connections to a host.

use super::api::{TOKEN, token};
use super::page::log_in;
use crate::support::api::config;
use crate::support::browser::Browser;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// More than the connections that a browser opens to a host.
const TABS: usize = 8;

#[test]
fn many_tabs_stay_live_if_reading_needs_the_token() {
    let (_directory, token_line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    // If the admin port is not on a loopback address, reading needs the token.
    let admin = format!("bind = \"0.0.0.0:0\"\nhosts = [\"lb.test\"]\n{token_line}");
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
        let badge = |word: &str| format!("document.getElementById('connection')?.textContent === {word:?}");
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
