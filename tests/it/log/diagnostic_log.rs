//! A diagnostic log that nobody reads, or whose reader is gone, neither blocks traffic nor delays the end of the
//! process.

use std::env;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::run_sessions;
use crate::support::configs::one_pool;
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::cpu_time_over;
use acequia::account::access_log::{AccessTarget, LogFormat};
use acequia::cli::run::start_log;
use acequia::plan::LogPlan;
use rustix::io::ioctl_fionread;

/// A proxy that logs everything to a pipe on standard error, also its access log. The pipe is read until the log names
/// the admin port. Then the shell command `holder` inherits the reading end of the pipe, which closes when `holder`
/// ends, or at once if `holder` is empty.
fn start(server: &Server, holder: &str) -> Proxy {
    let config = format!(
        "[log]\nlevel = \"trace\"\naccess = \"stderr\"\n{}",
        one_pool(&[server.address], "")
    );
    let script = format!("exec \"$@\" 2> >(sed -u '/admin port/q' >&2; {holder})");
    Proxy::setup(&config).under(&["bash", "-c", &script, "bash"]).start()
}

#[test]
fn traffic_goes_on_when_the_log_reader_does_not_read() {
    let server = Server::echo();
    // Holds the pipe as long as the proxy lives.
    let proxy = start(&server, "exec tail --pid=$$ -f /dev/null 2>&-");
    let unread = File::open(format!("/proc/{}/fd/2", proxy.pid())).unwrap();
    run_sessions(&proxy, 100);
    // The kernel keeps a line within one page of the pipe: up to half of each page can stay unused.
    eventually("the pipe is nearly full", || {
        ioctl_fionread(&unread).unwrap() > 32 << 10
    });
    run_sessions(&proxy, 100);
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.stop().code, Some(0));
}

#[test]
fn traffic_goes_on_without_cpu_cost_when_the_log_reader_is_gone() {
    let server = Server::echo();
    let proxy = start(&server, "");
    run_sessions(&proxy, 100);
    let used = cpu_time_over(&proxy, Duration::from_millis(500));
    assert!(
        used < Duration::from_millis(100),
        "expected less than 100 ms of CPU time while idle, used {used:?}"
    );
    assert_eq!(proxy.get("/live").0, 200);
    assert_eq!(proxy.stop().code, Some(0));
}

/// The environment variable by which `logging_never_waits_for_the_reader` knows that it runs as its own child process.
/// The child logs more lines than fit into a pipe and into the queue before the pipe.
const CHILD: &str = "ACEQUIA_TEST_LOG_CHILD";

/// Exit code of the child after it has logged all its lines: proof that it ran the test.
const DONE: i32 = 42;

#[test]
fn logging_never_waits_for_the_reader() {
    if env::var_os(CHILD).is_some() {
        let plan = LogPlan {
            format: LogFormat::Json,
            level: tracing::Level::INFO,
            access: AccessTarget::Off,
        };
        let (flushes_on_drop, _) = start_log(&plan);
        (0..20_000).for_each(|number| tracing::info!(number, "news"));
        drop(flushes_on_drop); // must not wait either
        std::process::exit(DONE);
    }
    let mut command = Command::new(env::current_exe().unwrap());
    let this_test = "log::diagnostic_log::logging_never_waits_for_the_reader";
    command.args(["--exact", this_test]);
    let mut child = command
        .env(CHILD, "")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _unread = child.stderr.take();
    assert_eq!(Process::adopt(child).wait().code(), Some(DONE));
}
