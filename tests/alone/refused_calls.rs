//! Sandboxes refuse system calls. Without an optional call, everything is still served, and the loss is logged once at
//! most; without a required call, the process does not start, and names the call.

use std::thread::Builder;

use libc::{EACCES, EINVAL, ENOSYS, EPERM, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, SYS_getsockopt, SYS_setsockopt};

use crate::support::client::{Client, assert_echoes_bytes};
use crate::support::process::Process;
use crate::support::proxy::{BINARY, Proxy, config_directory};
use crate::support::seccomp::{Call, refusing};
use crate::support::server::Server;

const ERRORS: [i32; 4] = [EPERM, ENOSYS, EINVAL, EACCES];

const OPTIONAL: [Call; 24] = [
    Call::new("splice", libc::SYS_splice),
    Call::new("pipe2", libc::SYS_pipe2),
    Call::command("F_SETPIPE_SZ", libc::SYS_fcntl, libc::F_SETPIPE_SZ as u32),
    Call::command("FIONREAD", libc::SYS_ioctl, libc::FIONREAD as u32),
    Call::option("TCP_INFO", SYS_getsockopt, IPPROTO_TCP, libc::TCP_INFO),
    Call::option("TCP_NODELAY", SYS_setsockopt, IPPROTO_TCP, libc::TCP_NODELAY),
    Call::option("TCP_QUICKACK", SYS_setsockopt, IPPROTO_TCP, libc::TCP_QUICKACK),
    Call::option("TCP_KEEPIDLE", SYS_setsockopt, IPPROTO_TCP, libc::TCP_KEEPIDLE),
    Call::option("TCP_KEEPINTVL", SYS_setsockopt, IPPROTO_TCP, libc::TCP_KEEPINTVL),
    Call::option("TCP_KEEPCNT", SYS_setsockopt, IPPROTO_TCP, libc::TCP_KEEPCNT),
    Call::option("TCP_USER_TIMEOUT", SYS_setsockopt, IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    Call::option(
        "TCP_NOTSENT_LOWAT",
        SYS_setsockopt,
        IPPROTO_TCP,
        libc::TCP_NOTSENT_LOWAT,
    ),
    Call::option("SO_SNDBUF", SYS_setsockopt, SOL_SOCKET, libc::SO_SNDBUF),
    Call::option("SO_KEEPALIVE", SYS_setsockopt, SOL_SOCKET, libc::SO_KEEPALIVE),
    Call::option("SO_LINGER", SYS_setsockopt, SOL_SOCKET, libc::SO_LINGER),
    Call::option("SO_OOBINLINE", SYS_setsockopt, SOL_SOCKET, libc::SO_OOBINLINE),
    Call::option("SO_REUSEADDR", SYS_setsockopt, SOL_SOCKET, libc::SO_REUSEADDR),
    Call::option("SO_REUSEPORT", SYS_setsockopt, SOL_SOCKET, libc::SO_REUSEPORT),
    Call::new("prlimit64", libc::SYS_prlimit64),
    Call::new("sched_getaffinity", libc::SYS_sched_getaffinity),
    Call::new("inotify_init1", libc::SYS_inotify_init1),
    Call::new("inotify_add_watch", libc::SYS_inotify_add_watch),
    Call::new("prctl", libc::SYS_prctl),
    Call::new("madvise", libc::SYS_madvise),
];

const REQUIRED: [Call; 7] = [
    Call::option(
        "setsockopt(IPV6_V6ONLY)",
        SYS_setsockopt,
        IPPROTO_IPV6,
        libc::IPV6_V6ONLY,
    ),
    Call::option("getsockopt(SO_ERROR)", SYS_getsockopt, SOL_SOCKET, libc::SO_ERROR),
    Call::command("fcntl(F_SETFL)", libc::SYS_fcntl, libc::F_SETFL as u32),
    Call::new("socket", libc::SYS_socket),
    Call::new("listen", libc::SYS_listen),
    Call::new("epoll", libc::SYS_epoll_create1),
    Call::new("eventfd", libc::SYS_eventfd2),
];

/// The number of cases that run at the same time.
const AT_ONCE: usize = 8;

/// Runs a case for each call with each error. After a failure, the name of the thread says which case it was.
fn with_each(calls: &[Call], run_case: impl Fn(Call, i32) + Sync) {
    let cases: Vec<_> = calls
        .iter()
        .flat_map(|call| ERRORS.map(|error| (*call, error)))
        .collect();
    for chunk in cases.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for (call, error) in chunk {
                let thread = Builder::new().name(format!("{} refused by {error}", call.name));
                let run_case = &run_case;
                thread.spawn_scoped(scope, move || run_case(*call, *error)).unwrap();
            }
        });
    }
}

#[test]
fn without_an_optional_call_traffic_goes_on_and_the_loss_is_logged_once_at_most() {
    const BYTES: usize = 8 << 20;
    let server = Server::echo();
    let sent: Vec<u8> = (0..BYTES).map(|number| (number % 251) as u8).collect();
    let config = format!(
        "[runtime]\nworkers = 2\nwatch = true\n\
         [listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\nuser_timeout = \"30s\"\n\
         [pools.p]\nservers = [\"{}\"]\nuser_timeout = \"30s\"\nhealth = {{ interval = \"50ms\" }}",
        server.address
    );
    with_each(&OPTIONAL, |call, error| {
        let under = refusing(&call, error);
        let proxy = Proxy::setup(&config)
            .under(&under.each_ref().map(String::as_str))
            .start();
        let client = Client::connect(proxy.at("l"));
        assert_echoes_bytes(&client, &sent);
        drop(client);
        let line = proxy.access_line();
        let seen = (&line["ending"], &line["bytes_up"], &line["bytes_down"]);
        assert_eq!(seen, (&"client_closed".into(), &BYTES.into(), &BYTES.into()), "{line}");
        assert_eq!(proxy.metrics().sum("acequia_server_up", &[]), 1.0);
        let stopped = proxy.stop();
        let warnings = stopped.log.iter().filter(|line| line["level"] != "INFO").count();
        assert!(stopped.code == Some(0) && warnings <= 1, "{stopped:#?}");
    });
}

#[test]
fn without_a_required_call_the_start_fails_and_names_the_call() {
    let config = "[listeners.l]\nbind = \"[::]:0\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:1\"]";
    with_each(&REQUIRED, |call, error| {
        let directory = config_directory("acequia.toml", config);
        let under = refusing(&call, error);
        let mut command = std::process::Command::new(&under[0]);
        command
            .args(&under[1..])
            .args([BINARY, "run", "-c"])
            .arg(directory.path().join("acequia.toml"));
        let mut process = Process::start(command.env("XDG_RUNTIME_DIR", directory.path()));
        let status = process.wait();
        let log = process.stderr.lines().join("\n");
        let named = match call.name {
            "epoll" | "eventfd" => String::from("cannot start an event loop (epoll, eventfd)"),
            name => format!("the system refuses {name}"),
        };
        assert!(status.code() == Some(3) && log.contains(&named), "{status}: {log}");
    });
}

/// In gVisor's TCP_INFO, the length of the accept queue is always zero, even if clients are in the queue.
#[test]
fn clients_are_accepted_where_the_length_of_the_accept_queue_is_always_reported_as_zero() {
    let server = Server::echo();
    let config = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    );
    let tcp_info = Call::option("TCP_INFO", SYS_getsockopt, IPPROTO_TCP, libc::TCP_INFO);
    let under = refusing(&tcp_info, 0); // the call does nothing and returns 0
    let proxy = Proxy::setup(&config)
        .under(&under.each_ref().map(String::as_str))
        .start();
    for _ in 0..3 {
        assert_echoes_bytes(&Client::connect(proxy.at("l")), b"ping");
    }
    assert_eq!(proxy.stop().code, Some(0));
}
