//! Past the pages of pipes that an unprivileged user may have, bytes are copied, and nobody hears of it.

use std::process::{Command, id};
use std::thread::scope;

use crate::support::client::{Client, assert_echoes};
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::usage::pipes;

/// Takes all the pages its user may have, in pipes of the size that acequia's have, and keeps them.
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
fn when_a_users_pages_are_used_up_bulk_is_copied_and_spliced_when_they_are_back() {
    const SESSIONS: usize = 12;
    const BYTES: usize = 2 << 20;
    // Nobody else's: pages are counted by user.
    let user = 20_000 + id() % 10_000;
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let as_user = ["setpriv", &*uid, &*gid, "--clear-groups"];
    let mut hog = Command::new(as_user[0]);
    let hog = Process::start(hog.args(&as_user[1..]).args(["/usr/bin/python3", "-c", HOG]));
    eventually("all pages are taken", || hog.stdout.so_far() == ["full"]);
    let server = Server::echo();
    let config = format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]",
        server.address
    );
    let proxy = Proxy::setup(&config).under(&as_user).start();
    let before = pipes(&proxy);
    let told = proxy.log().len();
    scope(|all| {
        for _ in 0..SESSIONS {
            all.spawn(|| assert_echoes(&Client::connect(proxy.at("l")), BYTES));
        }
    });
    assert_eq!(pipes(&proxy), before, "no pipe is better than a small one");
    assert_eq!(proxy.log().len(), told, "{:#?}", proxy.log());
    drop(hog);
    eventually("pages are free again", || {
        assert_echoes(&Client::connect(proxy.at("l")), BYTES);
        pipes(&proxy) > before
    });
}
