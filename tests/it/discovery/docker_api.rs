//! Imitated engines: Docker 29, which refuses old versions of the API, and engines with wrong or no answers. The
//! imitated answers follow the documentation of the API.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{discovery, pool, wait_for_error};
use crate::support::client::server_reached;
use crate::support::counts::log_lines;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::server::Server;

const CONTAINER_ID: &str = "8dfafdbc3a40";

/// An imitated engine, and the directory of its socket.
struct Engine {
    directory: TempDir,
    state: Arc<Mutex<State>>,
}

struct State {
    /// The minor number of the oldest version of the API that it speaks.
    oldest: u32,
    /// The minor number of the newest one.
    newest: u32,
    /// The answer to a request for the list of containers: status and body.
    containers: (String, String),
    requests: Vec<String>,
    /// The events that are sent to those who begin to follow events.
    past_events: Vec<String>,
    /// The connections that follow events.
    followers: Vec<UnixStream>,
    /// The connections that have asked for a new container. They get no answer.
    unanswered: Vec<UnixStream>,
}

impl Engine {
    fn start(oldest: u32, newest: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        let state = Arc::new(Mutex::new(State {
            oldest,
            newest,
            containers: ("200 OK".to_owned(), "[]".to_owned()),
            requests: Vec::new(),
            past_events: Vec::new(),
            followers: Vec::new(),
            unanswered: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = shared.lock().unwrap().respond(stream); // the client may have closed the connection
            }
        });
        Self { directory, state }
    }

    /// Sets the answer to later requests for the list of containers, and sends an event, which causes such a request.
    fn list(&self, status: &str, body: &str) {
        let mut state = self.state.lock().unwrap();
        state.containers = (status.to_owned(), body.to_owned());
        state.send_event(r#"{"Type":"container","Action":"start","Actor":{"ID":"1","Attributes":{"image":"i"}}}"#);
    }

    fn list_server(&self, server: &Server) {
        self.list("200 OK", &json!([container("one", server)]).to_string());
    }

    fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    fn config(&self) -> String {
        let socket = self.directory.path().join("docker.sock");
        format!(
            "[providers.docker]\nsocket = {socket:?}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
             [pools.p]\ndiscover = {{ docker = \"acequia.pool=orders\", settle = \"0s\" }}"
        )
    }
}

impl State {
    fn respond(&mut self, mut stream: UnixStream) -> std::io::Result<()> {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let path = head
            .first()
            .and_then(|line| line.split(' ').nth(1))
            .unwrap_or_default()
            .to_owned();
        self.requests.push(path.clone());
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let versioned = path.strip_prefix("/v1.").and_then(|rest| rest.split_once('/'));
        let minor = versioned.map(|(minor, _)| minor.parse::<u32>().unwrap());
        let (oldest, newest) = (self.oldest, self.newest);
        if let Some(minor) = minor.filter(|minor| !(oldest..=newest).contains(minor)) {
            let message = format!("client version 1.{minor} is not supported, it must be 1.{oldest} to 1.{newest}");
            return write_answer(
                &mut stream,
                "400 Bad Request",
                &json!({ "message": message }).to_string(),
            );
        }
        match versioned.map_or(path, |(_, rest)| rest) {
            "/version" => {
                let version = json!({ "Version": "29.0.0", "ApiVersion": format!("1.{newest}"), "MinAPIVersion": format!("1.{oldest}") });
                write_answer(&mut stream, "200 OK", &version.to_string())
            }
            // None of its containers has a HEALTHCHECK.
            "containers/json" if query.contains("unhealthy") => write_answer(&mut stream, "200 OK", "[]"),
            "containers/json" => write_answer(&mut stream, &self.containers.0, &self.containers.1),
            "events" => {
                write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for event in &self.past_events {
                    write_event(&mut stream, event)?;
                }
                self.followers.push(stream);
                Ok(())
            }
            "images/app/json" => write_answer(&mut stream, "200 OK", "{}"),
            "containers/create" => {
                self.unanswered.push(stream);
                Ok(())
            }
            other => panic!("not a request of acequia: {other}"),
        }
    }

    fn send_event(&mut self, event: &str) {
        self.followers
            .retain_mut(|follower| write_event(follower, event).is_ok());
    }
}

fn write_event(stream: &mut UnixStream, event: &str) -> std::io::Result<()> {
    let length = event.len() + 1;
    write!(stream, "{length:x}\r\n{event}\n\r\n")
}

/// The event of `docker stop` for the container of [`container`].
fn stop_event() -> String {
    let actor = json!({ "ID": CONTAINER_ID, "Attributes": { "image": "i", "signal": "15" } });
    json!({ "Type": "container", "Action": "kill", "Actor": actor }).to_string()
}

fn write_answer(stream: &mut UnixStream, status: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn container(name: &str, server: &Server) -> Value {
    json!({
        "Id": CONTAINER_ID,
        "Names": [format!("/{name}")],
        "State": "running",
        "Ports": [],
        "Labels": { "acequia.pool": "orders", "acequia.port": server.address.port().to_string() },
        "NetworkSettings": { "Networks": { "host": { "IPAddress": "" } } },
    })
}

#[test]
fn an_engine_that_refuses_old_api_versions_is_asked_in_a_newer_one() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let engine = Engine::start(44, 52);
    engine.list_server(&first);
    let proxy = Proxy::start(&engine.config());
    assert_eq!(server_reached(proxy.at("l")), "first");
    engine.list_server(&second);
    eventually("its events are followed", || server_reached(proxy.at("l")) == "second");
    let requests = engine.requests();
    assert_eq!(requests[0], "/version");
    assert!(
        requests[1..].iter().all(|path| path.starts_with("/v1.51/")),
        "{requests:?}"
    );
}

#[test]
fn an_engine_without_a_common_api_version_is_reported() {
    let engine = Engine::start(52, 60);
    let proxy = Proxy::setup(&engine.config()).launch(); // it is not ready without a list
    wait_for_error(
        &proxy,
        "the engine speaks versions 1.52 to 1.60 of Docker's API; needed is one of 1.41 to 1.51",
    );
    assert!(engine.requests().iter().all(|path| path == "/version"));
}

#[test]
fn an_unusable_list_changes_nothing_and_its_contents_are_not_logged() {
    let first = Server::named("first");
    let engine = Engine::start(24, 44);
    engine.list_server(&first);
    let proxy = Proxy::start(&engine.config());
    for (status, body, error) in [
        (
            "500 Internal Server Error",
            "{\"message\": \"disk\\nfull\"}",
            "500 Internal Server Error: disk\\nfull",
        ),
        ("200 OK", "[{\"Id\": \"secret\"", "is not valid"),
        ("200 OK", "[{\"Id\": 7}]", "is not valid"),
        ("200 OK", "[]", "it lists no server"),
        ("200 OK", &" ".repeat((16 << 20) + 1), "length limit exceeded"),
    ] {
        engine.list(status, body);
        wait_for_error(&proxy, error);
        assert_eq!(server_reached(proxy.at("l")), "first");
        engine.list_server(&first);
        eventually("the engine is followed again", || discovery(&proxy)["up"] == true);
    }
    log_lines(&proxy, "cannot take the list of servers, keeping the last one", 5);
    assert!(proxy.log().iter().all(|line| !line.to_string().contains("secret")));
}

/// The use of the only server.
fn server_use(proxy: &Proxy) -> Value {
    pool(proxy)["servers"][0]["use"].clone()
}

#[test]
fn a_container_that_was_asked_to_stop_before_acequia_started_gets_no_new_sessions() {
    let server = Server::named("first");
    let engine = Engine::start(44, 52);
    engine.list_server(&server);
    engine.state.lock().unwrap().past_events = vec![stop_event()];
    let begin = UNIX_EPOCH.elapsed().unwrap();
    let proxy = Proxy::setup(&engine.config()).launch();
    eventually("the container is a server", || server_use(&proxy) == "draining");
    // The request for events asks for those of the last 10 minutes, too.
    let request = engine.requests().into_iter().find(|path| path.contains("/events"));
    let request = request.unwrap();
    let since = request.split_once("since=").unwrap().1.split('.').next().unwrap();
    let since = Duration::from_secs(since.parse().unwrap());
    assert!(begin > since + Duration::from_secs(500), "{request}");
}

#[test]
fn a_container_that_was_asked_to_stop_gets_no_new_sessions_after_an_error_of_the_engine() {
    let server = Server::named("first");
    let engine = Engine::start(44, 52);
    engine.list_server(&server);
    let proxy = Proxy::start(&engine.config());
    engine.state.lock().unwrap().send_event(&stop_event());
    eventually("acequia knows that the container stops", || {
        server_use(&proxy) == "draining"
    });
    engine.list("500 Internal Server Error", "{}");
    wait_for_error(&proxy, "500 Internal Server Error");
    engine.list_server(&server);
    eventually("the engine is followed again", || discovery(&proxy)["up"] == true);
    assert_eq!(server_use(&proxy), "draining");
}

#[test]
fn an_engine_that_hangs_causes_no_delay_and_no_warning_at_shutdown() {
    let engine = Engine::start(44, 52);
    let socket = engine.directory.path().join("docker.sock");
    let config = format!(
        "[providers.docker]\nsocket = {socket:?}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p.scale]\n\
         min = 1\nmax = 1\nsessions_per_server = 1\nstart_timeout = \"10m\"\ndocker = {{ image = \"app\", port = 80 }}"
    );
    let proxy = Proxy::setup(&config).launch();
    let creates = |path: &String| path.contains("/containers/create");
    eventually("a container is being created", || engine.requests().iter().any(creates));
    let stopped = proxy.stop();
    assert_eq!(stopped.code, Some(0));
    let is_warning = |line: &Value| line["message"] == "a clone cannot be started";
    assert!(!stopped.log.iter().any(is_warning), "{:#?}", stopped.log);
}
