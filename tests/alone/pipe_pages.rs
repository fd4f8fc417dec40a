//! When an unprivileged user's quota of pipe pages is used up, bytes are copied instead of spliced, without log lines.

use std::process::{Command, id};
use std::thread::scope;

use crate::support::client::{Client, assert_echoes};
use crate::support::configs::one_pool;
use crate::support::counts::log_lines;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::pipes;
use crate::support::{eventually, is_root_for};

/// Allocates all pipe pages of its user, in pipes of the size that acequia uses, and keeps them.
const HOG: &str = "
import fcntl, os, signal
try:
    while True:
        fcntl.fcntl(os.pipe()[1], 1031, 1 << 18)  # F_SETPIPE_SZ
except OSError:
    print('full', flush=True)
    signal.pause()
";

#[test]
fn bulk_data_is_copied_while_the_pipe_quota_is_used_up_and_spliced_afterwards() {
    const SESSIONS: usize = 12;
    const BYTES: usize = 2 << 20;
    if !is_root_for("another user") {
        return;
    }
    // A user that no other process has, because the kernel counts pages per user.
    let user = 20_000 + id() % 10_000;
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let as_user = ["setpriv", &*uid, &*gid, "--clear-groups"];
    let mut hog = Command::new(as_user[0]);
    let hog = Process::start(hog.args(&as_user[1..]).args(["/usr/bin/python3", "-c", HOG]));
    eventually("the quota is used up", || hog.stdout.lines() == ["full"]);
    let server = Server::echo();
    let config = one_pool(&[server.address], "");
    let proxy = Proxy::setup(&config).under(&as_user).start();
    let before = pipes(&proxy);
    log_lines(&proxy, "server is up", 1); // the last line of a start
    let lines = proxy.log().len();
    scope(|all| {
        for _ in 0..SESSIONS {
            all.spawn(|| assert_echoes(&Client::connect(proxy.at("l")), BYTES));
        }
    });
    assert_eq!(pipes(&proxy), before, "expected no pipe rather than one with less room");
    assert_eq!(proxy.log().len(), lines, "{:#?}", proxy.log());
    drop(hog);
    eventually("bytes are spliced again", || {
        assert_echoes(&Client::connect(proxy.at("l")), BYTES);
        pipes(&proxy) > before
    });
}
