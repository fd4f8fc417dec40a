//! The admin page shows foreign text as plain text, works while it has no stream of events, and is accessible.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::api::{TOKEN, token};
use super::events::PORT_STREAMS;
use super::page::{log_in, open, text};
use super::page_acts::choose;
use crate::support::api::{config, event_stream, start, tcp};
use crate::support::browser::Browser;
use crate::support::client::{Client, ask};
use crate::support::hello::Hello;
use crate::support::process::Port;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::{eventually, wait_for};

/// Markup that would run a script if the page inserted it as HTML.
const MARKUP: &str = "<img/src=x/onerror=globalThis.hacked=1>";

/// Markup that is valid as the name of a server: it has no slash.
const NAME: &str = "<marquee>";

#[test]
fn foreign_text_is_never_inserted_as_html() {
    let (_directory, line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let config = config(&[&a, &b], &format!("bind = \"127.0.0.1:0\"\n{line}"));
    let proxy = Proxy::start(&config.replace("\"big\"", &format!("\"{NAME}\"")));
    let clients = [(), ()].map(|()| Client::connect(proxy.at("https")));
    for client in &clients {
        (&client.0)
            .write_all(&Hello::named("shop.example.com").bytes())
            .unwrap();
    }
    std::fs::write(proxy.directory().join("acequia.toml"), format!("wrong = [ # {MARKUP}")).unwrap();
    let authorization = &*format!("Authorization: Bearer {TOKEN}");
    assert_eq!(tcp(&proxy, "POST", "/api/v1/reload", &[authorization], "").0, 422);
    let mut browser = open(&proxy);
    log_in(&mut browser, TOKEN);
    browser.eventually("document.querySelector('#notices pre')?.innerText.includes('<img/src=x')");
    for section in ["#flow", "#server-table", "#session-table"] {
        browser.evaluate(&format!("document.querySelector('{section}').scrollIntoView()"));
        browser.eventually(&format!(
            "document.querySelector('{section}').innerText.includes({NAME:?})"
        ));
    }
    browser.evaluate("document.querySelector('#server-table button.plain').click()");
    browser.eventually(&format!(
        "document.querySelector('#detail').innerText.includes({NAME:?})"
    ));
    assert_eq!(
        browser.evaluate("document.querySelector('img[src^=x], marquee') === null"),
        true
    );
    assert_eq!(browser.evaluate("globalThis.hacked === undefined"), true);
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}

/// A stream of events that has begun.
fn stream(proxy: &Proxy) -> TcpStream {
    event_stream(TcpStream::connect(proxy.admin()).unwrap()).expect("a free stream")
}

#[test]
fn the_page_polls_while_no_stream_is_free_and_then_streams_again() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let streams: Vec<_> = (0..PORT_STREAMS).map(|_| stream(&proxy)).collect();
    assert_eq!(tcp(&proxy, "GET", "/api/v1/events", &[], "").0, 503);
    let mut browser = Browser::open(&format!("http://{}/", proxy.admin()), 1280, 900);
    browser.eventually("document.getElementById('connection')?.textContent === 'polling'");
    browser.eventually("document.querySelector('#tiles').innerText.includes('2 of 2')");
    // While the page polls, it gets samples only once a minute: in between, it shows no rate instead of an old one.
    let has_no_rate = "document.querySelector('#tiles').innerText.includes('From clients\\n–')";
    browser.eventually(has_no_rate);
    drop(streams);
    browser.eventually("document.getElementById('connection').textContent === 'live'");
    browser.eventually(&format!("!{has_no_rate}"));
}

#[test]
fn the_details_show_failures_by_reason_and_the_queue() {
    let a = Server::echo();
    let closed = Port::keep();
    let proxy = Proxy::start(&format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nqueue = {{ max = 7, timeout = \"5s\" }}\nhealth = {{ check = \"off\", eject_after = 1000 }}\n\
         servers = [{{ address = \"{}\", name = \"a\", max_sessions = 5 }}, {{ address = \"{}\", name = \"closed\" }}]",
        a.address, closed.address
    ));
    eventually("a refused connect", || {
        ask(proxy.at("l"), b"x"); // the pool may pick `a`
        let server = tcp(&proxy, "GET", "/api/v1/servers/p/closed", &[], "").1;
        server.contains("\"connect_failures\":{\"refused\":")
    });
    let mut browser = open(&proxy);
    browser.eventually("document.querySelectorAll('#server-table button.plain').length === 2");
    browser.evaluate("document.querySelectorAll('#server-table button.plain')[1].click()");
    browser.eventually("document.querySelector('#detail').innerText.includes('Failed connects\\nrefused ')");
    browser.evaluate("document.getElementById('detail').close()");
    browser.evaluate("document.getElementById('p:p').click()");
    browser.eventually("document.querySelector('#detail').innerText.includes('0 clients of at most 7')");
}

#[test]
fn the_details_of_a_server_are_opened_and_closed_by_keyboard() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut browser = open(&proxy);
    browser.press("Tab");
    browser.eventually("document.activeElement.className === 'skip'");
    browser.eventually("document.querySelector('#server-table button.plain') !== null");
    browser.evaluate("document.querySelector('#server-table button.plain').focus()");
    browser.press("Enter");
    browser.eventually("document.querySelector('#detail').open");
    // While the details are open, the table is drawn anew. The focus must still return to the server.
    let _client = Client::connect(proxy.at("https"));
    browser.eventually("document.querySelector('#tiles').innerText.includes('1 so far')");
    browser.press("Escape");
    browser.eventually("!document.querySelector('#detail').open");
    browser.eventually("document.activeElement.dataset.key === 'shop/big'");
}

/// axe-core is not part of this repository: `scripts/test` installs it with npm.
#[test]
fn axe_finds_no_accessibility_problem_on_the_page() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/axe/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "axe-core is missing; `npm install --no-save --prefix target/axe axe-core@4` installs it: {}: {error}",
            path.display()
        )
    });
    let (_directory, line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], &line);
    let _client = Client::connect(proxy.at("https"));
    drop(b);
    std::fs::write(proxy.directory().join("acequia.toml"), "wrong = [").unwrap();
    let authorization = &*format!("Authorization: Bearer {TOKEN}");
    assert_eq!(tcp(&proxy, "POST", "/api/v1/reload", &[authorization], "").0, 422);
    let mut browser = open(&proxy);
    browser.eventually("document.querySelectorAll('#server-table button.plain').length === 2");
    browser.evaluate(&format!("{axe}; true"));
    let server = "document.querySelector('#server-table button.plain')";
    for width in [1280, 390] {
        browser.resize(width, 900);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            assert_accessible(&mut browser, "read-only");
            browser.evaluate(&format!("{server}.click()"));
            browser.eventually("document.getElementById('detail').open");
            assert_accessible(&mut browser, "the details of a server");
            browser.evaluate("document.getElementById('detail').close()");
        }
    }
    log_in(&mut browser, TOKEN);
    browser.eventually("document.querySelector('#notices pre') !== null");
    browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })");
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        assert_accessible(&mut browser, "a failed reload");
        browser.evaluate(&format!("{server}.click()"));
        choose(&mut browser, "Drain", "gets no new sessions");
        assert_accessible(&mut browser, "a question");
        browser.evaluate("document.getElementById('question').close()");
    }
    proxy.stop();
    browser.eventually("document.getElementById('connection').textContent === 'connection lost'");
    assert_accessible(&mut browser, "a lost connection");
}

fn assert_accessible(browser: &mut Browser, state: &str) {
    let found = browser.evaluate(
        "axe.run({ resultTypes: ['violations'] }).then(({ violations }) => \
         violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`))",
    );
    assert_eq!(found, serde_json::json!([]), "{state}");
    let is_wider = browser.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth");
    assert_eq!(is_wider, false, "{state}: something is wider than the page");
}

/// Makes the pictures for README.md anew: `ACEQUIA_PICTURES=docs/pictures cargo nextest run pictures`.
#[test]
fn pictures_of_the_demo() {
    let Ok(directory) = std::env::var("ACEQUIA_PICTURES") else {
        return;
    };
    let mut demo = Command::new(env!("CARGO_BIN_EXE_acequia"));
    let mut demo = demo
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let url = wait_for("the address", || {
        lines
            .next()?
            .split_whitespace()
            .find(|word| word.starts_with("http://"))
            .map(str::to_owned)
    });
    let reader = std::thread::spawn(move || lines.for_each(drop));
    let mut browser = Browser::open(&url, 1280, 1130);
    // Each sample is one point of a chart: 125 are enough for its full width.
    let has_history =
        "fetch('/api/v1/history').then((answer) => answer.json()).then(({ totals }) => totals.sessions.length > 125)";
    while browser.evaluate(has_history) != true {
        std::thread::yield_now();
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    std::fs::create_dir_all(&directory).unwrap();
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.evaluate("new Promise((drawn) => setTimeout(drawn, 1500))");
        let picture = browser.picture();
        assert!(picture.len() < 300_000, "{} bytes", picture.len());
        std::fs::write(directory.join(format!("page-{scheme}.png")), picture).unwrap();
    }
    kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
    demo.wait().unwrap();
    reader.join().unwrap();
    assert!(!text(&mut browser, "#tiles").is_empty());
}
