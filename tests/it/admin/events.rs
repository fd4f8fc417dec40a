//! `GET /api/v1/events` and `GET /api/v1/history`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{TryRecvError, channel};
use std::time::Duration;

use humantime::parse_rfc3339;
use rustix::process::Signal;
use serde_json::Value;

use super::api::{TOKEN, token};
use crate::support::PATIENCE;
use crate::support::api::{config, event_stream, request, start, tcp, unix};
use crate::support::client::{Client, small_buffer_client};
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

/// How many streams the admin port allows at a time.
pub(super) const PORT_STREAMS: usize = 24;

/// How many more streams the Unix socket allows when [`PORT_STREAMS`] are open on the admin port.
const SOCKET_STREAMS: usize = 8;

/// A stream of events.
pub(super) struct Events(BufReader<TcpStream>);

impl Events {
    pub(super) fn open(proxy: &Proxy) -> Self {
        Self::open_with(proxy, &[])
    }

    fn open_with(proxy: &Proxy, headers: &[&str]) -> Self {
        let mut stream = TcpStream::connect(proxy.admin()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(request("GET", "/api/v1/events", headers, "").as_bytes())
            .unwrap();
        Self(BufReader::new(stream))
    }

    /// The data of the next event of this name. Skips other events.
    fn next(&mut self, name: &str) -> Value {
        while self.next_name() != name {}
        self.data()
    }

    /// The next event: its name and its data.
    pub(super) fn next_any(&mut self) -> (String, Value) {
        (self.next_name(), self.data())
    }

    fn data(&mut self) -> Value {
        let data = self.line();
        serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
    }

    /// Reads the name of the next event, not its data.
    fn next_name(&mut self) -> String {
        loop {
            if let Some(name) = self.line().strip_prefix("event: ") {
                return name.trim_end().to_owned();
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
        line
    }

    /// Reads to the end of the stream.
    fn read_to_end(mut self) {
        let mut line = Vec::new();
        while self.0.read_until(b'\n', &mut line).unwrap() > 0 {
            line.clear();
        }
    }
}

#[test]
fn a_stream_begins_with_the_state_and_goes_on_with_samples_and_changes() {
    let (a, b) = (Server::echo(), Server::echo());
    let config = config(&[&a, &b], "bind = \"127.0.0.1:0\"");
    let proxy = Proxy::start(&format!(
        "{config}\nhealth = {{ check = \"tcp\", interval = \"50ms\", rise = 1, fall = 1 }}"
    ));
    let mut events = Events::open(&proxy);
    let state = events.next("state");
    assert_eq!(state["pools"][0]["servers"][0]["name"], "big");
    events.next("state"); // the first comparison while a stream is open has no earlier state, so it sends all
    let hello = Hello::named("shop.example.com").alpn(&["h2"]).bytes();
    let mut client = Client::connect(proxy.at("https"));
    client.send(&hello).read(hello.len());
    let mut bytes = 0;
    while bytes < hello.len() as u64 {
        bytes += events.next("sample")["pools"]["shop"]["bytes_up"].as_u64().unwrap();
    }
    drop(client);
    // The sessions of the route `insiders`, open and in total, are sent without the whole state.
    let mut sessions = String::new();
    while sessions != "[0,1]" {
        sessions = events.next("changes")["routes"]["https"]["insiders"].to_string();
    }
    drop(b);
    let down = loop {
        let changes = events.next("changes");
        let servers = changes["servers"]["shop"].as_array().into_iter().flatten();
        let mut down = servers.filter(|server| server["name"] == "small" && server["up"] == false);
        if let Some(down) = down.next() {
            break down.clone();
        }
    };
    assert_eq!(down["health"], "down");
    proxy.stop();
    events.read_to_end();
}

/// All streams get the same events, made by comparing the state with the one at the previous look. If a value changed
/// between that look and the first state of a new stream, and changed back before the next look, the comparison would
/// find no change. So the next event is the whole state.
#[test]
fn a_stream_that_begins_beside_another_one_soon_gets_the_state_again() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut first = Events::open(&proxy);
    first.next("changes");
    let mut second = Events::open(&proxy);
    second.next("state");
    second.next("state");
    second.next("changes");
}

#[test]
fn the_history_counts_sessions_bytes_and_endings() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let history = || -> Value { serde_json::from_str(&tcp(&proxy, "GET", "/api/v1/history", &[], "").1).unwrap() };
    eventually("a sample", || history()["at"].is_string());
    let hello = Hello::named("shop.example.com").alpn(&["h2"]).bytes();
    for _ in 0..3 {
        let mut client = Client::connect(proxy.at("https"));
        client.send(&hello).read(hello.len());
    }
    let sum = |list: &Value| {
        list.as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_u64().unwrap())
            .sum::<u64>()
    };
    eventually("three sessions", || {
        let history = history();
        let pool = &history["pools"][0];
        let counts = history["endings"].as_array().unwrap().iter();
        let ended: u64 = counts.map(|ending| ending["minute"].as_u64().unwrap()).sum();
        sum(&history["totals"]["opened"]) == 3
            && ended == 3
            && pool["name"] == "shop"
            && sum(&pool["opened"]) == 3
            && sum(&pool["bytes_up"]) == 3 * hello.len() as u64
            && sum(&history["totals"]["bytes_down"]) == 3 * hello.len() as u64
    });
    let pool = history()["pools"][0].clone();
    let ended = pool["endings"].as_object().unwrap().values();
    assert_eq!(ended.map(|count| count.as_u64().unwrap()).sum::<u64>(), 3, "{pool}");
    let p99 = pool["connect_p99_ms"].as_array().unwrap();
    assert!(p99.iter().any(|p99| p99.as_f64() > Some(0.0)), "{pool}");
    let endings = history()["endings"].clone();
    let endings = endings.as_array().unwrap();
    assert!(!endings.is_empty());
    for ending in endings {
        assert_eq!(ending["hour"], ending["start"]); // the process started less than an hour ago
    }
}

#[test]
fn at_most_one_event_of_changes_follows_each_sample() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut events = Events::open(&proxy);
    events.next("state");
    events.next("sample");
    std::thread::scope(|all| {
        let (stop, stopped) = channel::<()>(); // dropping `stop` ends the thread
        let (proxy, address) = (&proxy, proxy.at("https"));
        all.spawn(move || {
            // Sessions begin and end, and a server changes, all the time.
            for usage in ["disabled", "enabled"].into_iter().cycle() {
                drop(Client::connect(address));
                let body = format!("{{\"use\":\"{usage}\"}}");
                assert_eq!(unix(proxy, "POST", "/api/v1/servers/shop/big", &body).0, 200);
                if stopped.try_recv() != Err(TryRecvError::Empty) {
                    return;
                }
            }
        });
        let mut names: Vec<String> = Vec::new();
        // After a look for changes that took much CPU time comes a pause: not every sample is followed by changes.
        while names.iter().filter(|name| *name == "sample").count() < 4 || !names.contains(&"changes".to_owned()) {
            names.push(events.next_name());
        }
        drop(stop);
        let is_of_changes = |name: &String| name == "changes" || name == "state";
        let has_two_in_a_row = names.windows(2).any(|two| two.iter().all(is_of_changes));
        assert!(!has_two_in_a_row, "expected a sample in between: {names:?}");
    });
}

#[test]
fn event_streams_are_limited_and_do_not_block_other_requests() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    // All streams are opened at once, as pages and `acequia top` do after a restart of acequia.
    let mut streams: Vec<_> = (0..PORT_STREAMS).map(|_| Events::open(&proxy)).collect();
    for stream in &mut streams {
        stream.next("state");
        stream.next("sample");
    }
    let (status, error) = tcp(&proxy, "GET", "/api/v1/events", &[], "");
    assert!(status == 503 && error.contains("event streams"), "{error}");
    assert_eq!(tcp(&proxy, "GET", "/api/v1/state", &[], "").0, 200);
    let socket = UnixStream::connect(proxy.directory().join("acequia/admin.sock")).unwrap();
    let _on_socket = event_stream(socket).expect("places are kept for the Unix socket");
    streams.pop();
    eventually("the place of a client that left is free", || {
        Events::open(&proxy).line().contains(" 200 ")
    });
}

#[test]
fn a_stream_ends_when_the_token_that_it_was_opened_with_is_replaced() {
    let (directory, line) = token();
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = Proxy::start(&config(&[&a, &b], &format!("bind = \"0.0.0.0:0\"\n{line}")));
    let header = |token: &str| format!("Authorization: Bearer {token}");
    let mut before = Events::open_with(&proxy, &[&header(TOKEN)]);
    before.next("state");
    std::fs::write(directory.path().join("token"), "another\n").unwrap();
    let mut after = Events::open_with(&proxy, &[&header("another")]);
    after.next("state");
    before.read_to_end();
    // The token of each stream is checked on its own: that of `before` is rejected, that of `after` is not.
    after.next("sample");
    after.next("sample");
    let state = |token: &str| tcp(&proxy, "GET", "/api/v1/state", &[&header(token)], "").0;
    assert_eq!((state(TOKEN), state("another")), (401, 200));
}

#[test]
fn a_stall_adds_all_of_its_seconds_to_the_history() {
    const STALL: Duration = Duration::from_secs(3);
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let mut events = Events::open(&proxy);
    let end = |sample: &Value| parse_rfc3339(sample["at"].as_str().unwrap()).unwrap();
    let began = end(&events.next("sample"));
    proxy.signal(Signal::STOP);
    std::thread::sleep(STALL);
    proxy.signal(Signal::CONT);
    let (mut seconds, mut longest) = (0, 0);
    let ended = loop {
        let sample = events.next("sample");
        seconds += sample["seconds"].as_u64().unwrap();
        longest = longest.max(sample["seconds"].as_u64().unwrap());
        if longest > 1 {
            break end(&sample);
        }
    };
    let passed = ended.duration_since(began).unwrap().as_secs_f64();
    assert!((seconds as f64 - passed).abs() <= 1.1, "{seconds} in {passed} s");
    let history: Value = serde_json::from_str(&tcp(&proxy, "GET", "/api/v1/history", &[], "").1).unwrap();
    let listed = history["totals"]["sessions"].as_array().unwrap().len() as u64;
    assert!(
        listed > seconds,
        "{listed} values, {seconds} of them since the first sample"
    );
}

#[test]
fn clients_that_do_not_read_lose_their_streams() {
    // Many servers make a large state, so that the first events fill the buffers of the sockets.
    let servers: Vec<_> = (1..200).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let proxy = Proxy::start(&format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p]\nhealth = {{ check = \"off\" }}\nservers = [{}]",
        servers.join(", ")
    ));
    let head = request("GET", "/api/v1/events", &[], "");
    let of_port: Vec<_> = (0..PORT_STREAMS)
        .map(|_| {
            let mut client = small_buffer_client(proxy.admin(), 4096);
            client.send(head.as_bytes());
            client
        })
        .collect();
    let socket = proxy.directory().join("acequia/admin.sock");
    let open = || event_stream(UnixStream::connect(&socket).unwrap());
    let of_socket: Vec<_> = (0..SOCKET_STREAMS).filter_map(|_| open()).collect();
    assert_eq!(of_socket.len(), SOCKET_STREAMS);
    assert!(open().is_none(), "all places are taken");
    let mut later = Vec::new();
    eventually("all places are free again", || {
        later.extend(open());
        later.len() == of_port.len() + of_socket.len()
    });
}
