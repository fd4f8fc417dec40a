//! Clients and servers on Unix sockets.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{scope, spawn};
use std::time::Duration;

use acequia::addr::UnixPath;
use acequia::proxy_protocol::{Decoded, ProxyAddresses, decode};
use rustix::process::geteuid;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::client::{Client, ask};
use crate::support::counts::{wait_for_active_sessions, wait_for_ended_sessions};
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, checked, config_directory};
use crate::support::server::{ManualServer, Server};
use crate::support::stream::reset;
use crate::support::{PATIENCE, eventually};

/// A directory for sockets.
struct Sockets(TempDir);

impl Sockets {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `unix:/…/NAME`
    fn address(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }

    fn count(&self) -> usize {
        self.0.path().read_dir().unwrap().count()
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Starts a server on a Unix socket. It runs `session` for each client, until the test process ends.
fn serve(path: &Path, session: fn(UnixStream)) {
    let listener = UnixListener::bind(path).unwrap();
    spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            spawn(move || session(stream));
        }
    });
}

fn echo(mut stream: UnixStream) {
    let mut from = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut from, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}

fn config(bind: &str, listener_keys: &str, server: &str, pool_keys: &str) -> String {
    format!(
        "[runtime]\nworkers = 2\n[listeners.l]\nbind = [\"127.0.0.1:0\", \"{bind}\"]\npool = \"p\"\n{listener_keys}\n\
         [pools.p]\nservers = [\"{server}\"]\n{pool_keys}\n"
    )
}

/// Sends the bytes, half-closes, and returns what comes back.
fn exchange(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let client = connect(path);
    let mut back = Vec::new();
    scope(|scope| {
        scope.spawn(|| {
            (&client).write_all(bytes).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        });
        (&client).read_to_end(&mut back).unwrap();
    });
    back
}

#[test]
fn unix_sockets_and_tcp_are_relayed_in_any_combination() {
    let (sockets, tcp) = (Sockets::new(), Server::echo());
    serve(&sockets.path("server"), echo);
    let bytes: Vec<u8> = (0..8 << 20).map(|number: u32| (number % 251) as u8).collect();
    for server in [sockets.address("server"), tcp.address.to_string()] {
        let proxy = Proxy::start(&config(&sockets.address("l"), "", &server, ""));
        for _ in 0..8 {
            assert!(
                exchange(&sockets.path("l"), &bytes) == bytes,
                "expected the same bytes from {server}"
            );
        }
        assert!(ask(proxy.at("l"), &bytes[..1 << 16]) == bytes[..1 << 16]);
        let this_process = format!("unix:uid={},pid={}", geteuid().as_raw(), std::process::id());
        let lines = proxy.access_lines(9);
        let of_unix: Vec<_> = lines.iter().filter(|line| line["client"] == *this_process).collect();
        assert_eq!(of_unix.len(), 8, "{lines:#?}");
        for line in of_unix {
            assert_eq!(
                (&line["peer"], &line["server"]),
                (&this_process.clone().into(), &server.clone().into())
            );
            assert_eq!(
                (&line["ending"], line["client_rtt_us"].is_null()),
                (&"client_closed".into(), true)
            );
            assert_eq!(
                (line["bytes_up"].as_u64(), line["bytes_down"].as_u64()),
                (Some(8 << 20), Some(8 << 20))
            );
        }
        stop_without_warnings(proxy);
    }
}

fn stop_without_warnings(proxy: Proxy) {
    let stopped = proxy.stop();
    assert_eq!(stopped.code, Some(0));
    let warnings: Vec<_> = stopped.log.iter().filter(|line| line["level"] == "WARN").collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}

#[test]
fn no_option_of_tcp_is_set_on_a_unix_socket() {
    let sockets = Sockets::new();
    serve(&sockets.path("server"), echo);
    // With `sni`, acequia reads first bytes before it connects; on TCP, it would then set TCP_QUICKACK.
    let routes = "routes = [{ sni = \"a.example\", pool = \"p\" }]";
    let proxy = Proxy::start(&config(&sockets.address("l"), routes, &sockets.address("server"), ""));
    let mut client = connect(&sockets.path("l"));
    client.write_all(b"ping").unwrap();
    let mut echoed = [0; 4];
    client.read_exact(&mut echoed).unwrap();
    // A worker publishes the traffic right after it has set the keepalive that is due.
    eventually("the traffic of the open session is published", || {
        proxy.metrics().sum("acequia_bytes_total", &[("direction", "down")]) == 4.0
    });
    drop(client);
    wait_for_ended_sessions(&proxy, "client_closed", 1);
    // An option of TCP cannot be set on a Unix socket: acequia would have logged the failed call (except the one in
    // `ack_at_once`).
    stop_without_warnings(proxy);
}

#[test]
fn a_process_that_ends_with_unread_bytes_resets_its_session() {
    let sockets = Sockets::new();
    let listener = UnixListener::bind(sockets.path("server")).unwrap();
    let proxy = Proxy::start(&config(
        &sockets.address("l"),
        "",
        &sockets.address("server"),
        "health = { check = \"off\" }",
    ));
    let mut client = Client::connect(proxy.at("l"));
    client.send(b"request");
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    (&server).read_exact(&mut [0; 1]).unwrap();
    drop(server);
    client.must_be_reset();
    let client = connect(&sockets.path("l"));
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.write_all(b"answer").unwrap();
    (&client).read_exact(&mut [0; 1]).unwrap();
    drop(client);
    let mut rest = Vec::new();
    // The server sees the end, no reset: acequia has read all its bytes, and only unread bytes reset a Unix socket.
    let end = server.read_to_end(&mut rest);
    assert_eq!((rest, end.is_ok()), (Vec::new(), true));
    wait_for_ended_sessions(&proxy, "server_reset", 1);
    wait_for_ended_sessions(&proxy, "client_reset", 1);
    wait_for_active_sessions(&proxy, 0);
}

#[test]
fn a_servers_reset_ends_the_session_of_a_unix_client_at_once() {
    let (sockets, manual) = (Sockets::new(), ManualServer::new());
    let server = manual.server.address.to_string();
    let proxy = Proxy::start(&config(
        &sockets.address("l"),
        "",
        &server,
        "health = { check = \"off\" }",
    ));
    let mut client = connect(&sockets.path("l"));
    let mut server = manual.session();
    server.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let began = Instant::now();
    reset(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(proxy.access_line()["ending"], "server_reset");
}

#[test]
fn a_missing_unix_server_is_down_until_it_listens() {
    let sockets = Sockets::new();
    let health = "health = { interval = \"50ms\", rise = 1, fall = 1 }";
    let server = sockets.address("server");
    let proxy = Proxy::setup(&config(&sockets.address("l"), "", &server, health)).launch();
    let state = || proxy.server("p", &server)["health"].clone();
    eventually("the server is down", || state() == "down");
    assert_eq!(exchange(&sockets.path("l"), b""), b"");
    wait_for_ended_sessions(&proxy, "no_server", 1);
    serve(&sockets.path("server"), echo);
    eventually("the server is up", || state() == "up");
    assert_eq!(exchange(&sockets.path("l"), b"ping"), b"ping");
}

#[test]
fn the_socket_file_exists_as_long_as_the_listener() {
    let (sockets, server) = (Sockets::new(), Server::echo());
    drop(UnixListener::bind(sockets.path("l")).unwrap()); // leaves its file, like a process that was killed
    let with = |keys: &str| config(&sockets.address("l"), keys, &server.address.to_string(), "");
    let proxy = Proxy::start(&with(""));
    let file = || fs::metadata(sockets.path("l")).unwrap();
    assert_eq!(file().mode() & 0o777, 0o660);
    let open = connect(&sockets.path("l"));
    let inode = file().ino();
    assert!(proxy.reload(&with("unix_mode = \"0600\"")));
    assert_eq!((file().ino(), file().mode() & 0o777), (inode, 0o600));
    assert_eq!(exchange(&sockets.path("l"), b"ping"), b"ping");

    // A second process names the first one in its error, and changes nothing.
    let directory = config_directory("acequia.toml", &with(""));
    let second = finished(acequia(&["run", "-c"]).arg(directory.path().join("acequia.toml")));
    assert_eq!(second.code, Some(3), "{second:#?}");
    let expected = format!("another process listens there (pid {}); stop that process", proxy.pid());
    assert!(second.stderr.contains(&expected), "{}", second.stderr);
    assert_eq!(file().ino(), inode);

    assert!(proxy.reload(&with("").replace("/l\"", "/m\"")));
    assert!(!sockets.path("l").exists() && sockets.path("m").exists());
    assert_eq!(exchange(&sockets.path("m"), b"ping"), b"ping");
    (&open).write_all(b"open").unwrap();
    (&open).read_exact(&mut [0; 4]).unwrap(); // its session outlives the listener
    drop(open);
    assert_eq!(proxy.stop().code, Some(0));
    assert_eq!(sockets.count(), 0);
}

#[test]
fn a_reload_creates_a_removed_socket_file_again() {
    let (sockets, server) = (Sockets::new(), Server::echo());
    let proxy = Proxy::start(&config(&sockets.address("l"), "", &server.address.to_string(), ""));
    let open = connect(&sockets.path("l"));
    fs::remove_file(sockets.path("l")).unwrap();
    let changes = proxy.answer(&["reload"]);
    let warning = "was removed or replaced: it is bound again";
    assert!(changes["warnings"].as_str().unwrap().contains(warning), "{changes}");
    assert_eq!(exchange(&sockets.path("l"), b"ping"), b"ping");
    (&open).write_all(b"open").unwrap();
    (&open).read_exact(&mut [0; 4]).unwrap(); // this client connected through the old file
    assert_eq!(proxy.answer(&["reload"])["warnings"], "");

    // What another process has put there is left alone.
    fs::remove_file(sockets.path("l")).unwrap();
    let other = UnixListener::bind(sockets.path("l")).unwrap();
    let inode = || fs::metadata(sockets.path("l")).unwrap().ino();
    let before = (inode(), fs::metadata(sockets.path("l")).unwrap().mode());
    let changes = proxy.answer(&["reload"]);
    let warning = "clients may not reach it, and it cannot be bound again: another process listens there";
    assert!(changes["warnings"].as_str().unwrap().contains(warning), "{changes}");
    assert_eq!((inode(), fs::metadata(sockets.path("l")).unwrap().mode()), before);
    drop(other);
    drop(open);
    assert_eq!(proxy.stop().code, Some(0));
    assert_eq!(sockets.count(), 1, "only that of the other process");
}

/// The socket is bound under a temporary name in the same directory first. That path must not be too long either.
#[test]
fn the_longest_path_may_end_in_a_file_name_of_one_letter() {
    let (sockets, server) = (Sockets::new(), Server::echo());
    let room = UnixPath::BYTES_MAX - sockets.path("").as_os_str().len();
    let directory = "d".repeat(room - "/s".len());
    fs::create_dir(sockets.path(&directory)).unwrap();
    let path = sockets.path(&format!("{directory}/s"));
    assert_eq!(path.as_os_str().len(), UnixPath::BYTES_MAX);
    let address = format!("unix:{}", path.display());
    let _proxy = Proxy::start(&config(&address, "", &server.address.to_string(), ""));
    assert_eq!(exchange(&path, b"ping"), b"ping");
}

#[test]
fn a_path_that_cannot_be_bound_is_reported_with_the_remedy() {
    let (sockets, server) = (Sockets::new(), Server::echo());
    fs::write(sockets.path("file"), "precious").unwrap();
    for (name, expected) in [
        (
            "file",
            "the file exists and is not a socket; use another path, or move the file away",
        ),
        ("missing/l", "; create its directory"),
    ] {
        let config = config(&sockets.address(name), "", &server.address.to_string(), "");
        let directory = config_directory("acequia.toml", &config);
        let done = finished(acequia(&["run", "-c"]).arg(directory.path().join("acequia.toml")));
        assert_eq!(done.code, Some(3), "{done:#?}");
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    }
    assert_eq!(fs::read(sockets.path("file")).unwrap(), b"precious");
}

#[test]
fn the_proxy_header_of_a_unix_client_names_no_client_address() {
    let (sockets, server) = (Sockets::new(), Server::keeping(b"bye"));
    for version in ["v1", "v2"] {
        let pool_keys = format!("proxy_protocol = \"{version}\"\nhealth = {{ check = \"off\" }}");
        let _proxy = Proxy::start(&config(
            &sockets.address("l"),
            "",
            &server.address.to_string(),
            &pool_keys,
        ));
        assert_eq!(exchange(&sockets.path("l"), b"data"), b"bye");
    }
    let received = server.received();
    assert_eq!(received[0], b"PROXY UNKNOWN\r\ndata");
    let Decoded::Header(header, length) = decode(&received[1]) else {
        panic!("{received:?}");
    };
    let ProxyAddresses::Unix(paths) = header.addresses else {
        panic!("{header:?}");
    };
    let (theirs, ours) = paths.split_at(108);
    assert_eq!(theirs, [0; 108]);
    assert!(ours.starts_with(format!("{}\0", sockets.path("l").display()).as_bytes()));
    assert_eq!(&received[1][length..], b"data");
}

#[test]
fn a_peer_on_a_unix_socket_names_its_client_if_it_is_trusted() {
    let (sockets, server) = (Sockets::new(), Server::keeping(b"bye"));
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\ndata";
    for (from, client) in [
        ("\"10.0.0.0/8\", \"unix\"", "192.0.2.7:56324"),
        ("\"10.0.0.0/8\"", "unix:uid="),
    ] {
        let accept = format!("accept_proxy = {{ from = [{from}] }}");
        let proxy = Proxy::start(&config(&sockets.address("l"), &accept, &server.address.to_string(), ""));
        assert_eq!(exchange(&sockets.path("l"), header), b"bye");
        let line = proxy.access_line();
        assert!(line["client"].as_str().unwrap().starts_with(client), "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("unix:uid="), "{line}");
    }
    assert_eq!(server.received(), [b"data".to_vec(), header.to_vec()]);
}

#[test]
fn a_unix_client_is_in_no_network_and_counts_by_user() {
    let (sockets, server) = (Sockets::new(), Server::echo());
    let config = format!(
        "[guards.inside]\nallow = [\"0.0.0.0/0\", \"::/0\"]\n[guards.few]\nsessions_per_source = 2\n\
         [listeners.a]\nbind = \"{}\"\nguards = \"inside\"\npool = \"p\"\n\
         [listeners.b]\nbind = \"{}\"\nguards = \"few\"\npool = \"p\"\n\
         [pools.p]\nservers = [\"{}\"]\n",
        sockets.address("a"),
        sockets.address("b"),
        server.address
    );
    let proxy = Proxy::start(&config);
    let mut refused = connect(&sockets.path("a"));
    assert_eq!(refused.read(&mut [0]).unwrap(), 0);
    let open = [connect(&sockets.path("b")), connect(&sockets.path("b"))];
    for mut stream in &open {
        stream.write_all(b"x").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    }
    let mut third = connect(&sockets.path("b"));
    assert!(matches!(third.read(&mut [0]), Ok(0)), "expected the end");
    let reasons: Vec<_> = proxy
        .access_lines(2)
        .iter()
        .map(|line| line["guard_reason"].clone())
        .collect();
    assert_eq!(reasons, ["not_allowed", "sessions_per_source"]);
    let guard = proxy.answer(&["guard", "few"]);
    let source = format!("unix:uid={}", geteuid().as_raw());
    assert!(guard.to_string().contains(&source), "{guard}");
}

/// A directory may be reached by several paths, as `/run` by `/var/run`. If a server is the socket of its own listener
/// under another path, the listener connects to itself until it is full of sessions.
#[test]
fn check_knows_a_socket_by_any_of_its_paths() {
    let sockets = Sockets::new();
    std::os::unix::fs::symlink(sockets.0.path(), sockets.path("link")).unwrap();
    let (own, other) = (sockets.address("l"), "127.0.0.1:9");
    let second = |path: &str| format!("[listeners.m]\nbind = \"{}\"\npool = \"p\"\n", sockets.address(path));
    for (text, expected) in [
        (config(&own, "", &sockets.address("link/l"), ""), "is this listener"),
        (config(&own, "", &sockets.address("./l"), ""), "is this listener"),
        (
            config(&own, "", other, "") + &second("link/l"),
            "is the same socket as unix:",
        ),
        (config(&own, "", other, "") + &second("./l"), "is bound twice"),
        (
            config(&own, "", other, "") + &format!("[admin]\nsocket = \"{}\"\n", sockets.path("link/l").display()),
            "`socket` of [admin]",
        ),
    ] {
        let (code, said) = checked(&text);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}
