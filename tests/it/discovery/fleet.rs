//! Instances that take their configuration from keys of a real etcd, and write back the results.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::api;
use crate::support::client::{Client, server_reached};
use crate::support::counts::{log_count, log_lines};
use crate::support::etcd::Etcd;
use crate::support::process::{Finished, finished};
use crate::support::proxy::{Proxy, acequia};
use crate::support::server::Server;
use crate::support::{PATIENCE, eventually, wait_for};

const KEY: &str = "/acequia/edge";

/// The file of an instance with this `state_dir`; `more` is further keys of `[remote]`.
fn bootstrap(etcd: &Etcd, instance: &str, state: &Path, more: &str) -> String {
    format!(
        "[runtime]\nstate_dir = {state:?}\n[providers.etcd]\nendpoints = [\"{}\"]\n\
         [remote]\nfrom = \"etcd:{KEY}\"\ninstance = \"{instance}\"\n{more}\n",
        etcd.url()
    )
}

/// A text for the store: a configuration with a listener `l` and a pool of this server.
fn text(server: &Server) -> String {
    format!(
        "[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\nservers = [\"{}\"]\n",
        server.address
    )
}

/// What an instance has written back; null: nothing.
fn status(etcd: &Etcd, instance: &str) -> Value {
    let statuses = etcd.get(&format!("{KEY}/status/{instance}"));
    statuses
        .first()
        .map_or(Value::Null, |status| serde_json::from_str(&status.value).unwrap())
}

/// The server that the first listener leads to. The address of this listener is requested, because a reload may have
/// changed it since the start.
fn reached(proxy: &Proxy) -> String {
    let state = proxy.answer(&["status"]);
    let address = state["listeners"][0]["addresses"][0].as_str().unwrap();
    server_reached(address.parse().unwrap())
}

/// The result of a command with this file as its configuration.
fn with_file(command: &str, toml: &str) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("edge.toml"), toml).unwrap();
    finished(acequia(&[command, "-c", "edge.toml"]).current_dir(directory.path()))
}

/// Waits until the status of an instance has an error, and returns its message.
fn wait_for_refusal(etcd: &Etcd, instance: &str) -> String {
    wait_for("the error is written back", || {
        status(etcd, instance)["error"]["message"].as_str().map(str::to_owned)
    })
}

#[test]
fn all_instances_apply_a_valid_text_and_refuse_a_broken_one() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    etcd.put(KEY, &text(&first));
    let states = TempDir::new().unwrap();
    let names = ["one", "two", "three"];
    let fleet = names.map(|name| Proxy::start(&bootstrap(&etcd, name, &states.path().join(name), "")));
    let mut old = Client::connect(fleet[0].at("l"));
    assert_eq!(old.read(5), b"first");
    let revision = etcd.put(KEY, &text(&second));
    for (name, proxy) in names.iter().zip(&fleet) {
        eventually("the new text is in force", || server_reached(proxy.at("l")) == "second");
        let line = &log_lines(proxy, "reloaded", 1)[0];
        assert_eq!(line["by"], format!("a change of etcd:{KEY}"));
        eventually("the new revision is written back", || {
            let status = status(&etcd, name);
            status["in_force"]["revision"] == revision && status["error"].is_null() && status["instance"] == *name
        });
    }
    let broken = etcd.put(KEY, "[listeners.l]\nbnid = \"127.0.0.1:0\"\n");
    for (name, proxy) in names.iter().zip(&fleet) {
        let error = wait_for_refusal(&etcd, name);
        assert!(
            error.contains("unknown key `bnid`") && error.contains(&format!("etcd:{KEY}:2:1")),
            "{error}"
        );
        let status = status(&etcd, name);
        assert_eq!(
            (&status["in_force"]["revision"], &status["error"]["revision"]),
            (&revision.into(), &broken.into())
        );
        assert_eq!(server_reached(proxy.at("l")), "second");
        assert_eq!(proxy.reloads(), (1.0, 1.0));
        let metrics = proxy.metrics();
        let sum = |metric: &str| metrics.sum(metric, &[]);
        assert_eq!((sum("acequia_remote_up"), sum("acequia_remote_refused")), (1.0, 1.0));
        let (_, answer) = api::unix(proxy, "GET", "/api/v1/reload", "");
        assert!(answer["error"].as_str().unwrap().contains("bnid"), "{answer}");
        let shown = proxy.command(&["status"]).stdout;
        let expected = format!("etcd:{KEY} as {name}: revision {revision} in force since ");
        assert!(
            shown.contains(&expected) && shown.contains(&format!(", revision {broken} refused at ")),
            "{shown}"
        );
    }
    etcd.put(KEY, &text(&first));
    for (name, proxy) in names.iter().zip(&fleet) {
        eventually("a valid text clears the error", || {
            server_reached(proxy.at("l")) == "first" && status(&etcd, name)["error"].is_null()
        });
    }
    assert_eq!(old.finish().try_read_all().unwrap(), b"", "no session was touched");
}

/// A lease lasts 60 s and is renewed every 20 s; only a renewal increases its remaining time.
#[test]
fn a_running_instance_renews_the_lease_of_its_status_and_reports_another_with_its_name() {
    let server = Server::named("server");
    let etcd = Etcd::start();
    etcd.put(KEY, &text(&server));
    let state = TempDir::new().unwrap();
    let proxy = Proxy::start(&bootstrap(&etcd, "one", state.path(), ""));
    let lease = wait_for("the status is written", || {
        etcd.get(&format!("{KEY}/status/"))
            .first()
            .map(|entry| entry.lease.clone())
    });
    let other_state = TempDir::new().unwrap();
    let other = Proxy::start(&bootstrap(&etcd, "one", other_state.path(), ""));
    let remaining = || etcd.ctl(&["lease", "timetolive", &lease])["ttl"].as_i64().unwrap();
    // `eventually` would fail after 20 s, which may be before the renewal.
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut seen = remaining();
    loop {
        let now = remaining();
        if now > seen {
            break;
        }
        assert!(Instant::now() < deadline, "the lease is not renewed: {now} s are left");
        seen = now;
    }
    eventually("the other process is reported", || {
        proxy
            .command(&["status"])
            .stdout
            .contains("another process has this name")
    });
    let warning = "another process writes its status with our name: give each its own `instance` in `[remote]`";
    assert_eq!(log_lines(&proxy, warning, 1)[0]["instance"], "one");
    drop(other);
}

#[test]
fn a_stopped_store_changes_nothing_and_is_followed_again_even_after_a_compaction() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let mut etcd = Etcd::start();
    etcd.put(KEY, &text(&first));
    let state = TempDir::new().unwrap();
    let proxy = Proxy::start(&bootstrap(&etcd, "one", state.path(), ""));
    etcd.stop();
    log_lines(
        &proxy,
        "the store of the configuration is lost: what is in force stays",
        1,
    );
    assert_eq!(server_reached(proxy.at("l")), "first");
    assert_eq!(proxy.get("/ready").0, 200);
    assert_eq!(proxy.metrics().sum("acequia_remote_up", &[]), 0.0);
    let reload = proxy.command(&["reload"]);
    assert!(
        reload.code == Some(0) && reload.stdout.contains("cannot be read, and its text in force stays"),
        "{reload:#?}"
    );
    etcd.begin();
    let revision = etcd.put(KEY, &text(&second));
    etcd.compact(revision);
    eventually("the text is followed again", || {
        server_reached(proxy.at("l")) == "second"
    });
    log_lines(&proxy, "the store of the configuration answers again", 1);
    eventually("the status is back", || {
        status(&etcd, "one")["in_force"]["revision"] == revision
    });
    assert_eq!(proxy.metrics().sum("acequia_remote_up", &[]), 1.0);
}

#[test]
fn a_start_without_the_store_uses_the_last_text_or_waits_for_one() {
    let server = Server::named("server");
    let mut etcd = Etcd::start();
    let revision = etcd.put(KEY, &text(&server));
    let states = TempDir::new().unwrap();
    let (known, unknown) = (states.path().join("known"), states.path().join("unknown"));
    Proxy::start(&bootstrap(&etcd, "known", &known, "")).stop();
    etcd.stop();
    let started = Proxy::start(&bootstrap(&etcd, "known", &known, ""));
    let message = "started with the configuration that was in force last, from `state_dir`";
    assert_eq!(log_lines(&started, message, 1)[0]["revision"], revision);
    assert_eq!(reached(&started), "server");
    let waiting = Proxy::setup(&bootstrap(&etcd, "unknown", &unknown, "")).launch();
    let message = format!("waiting for the configuration: etcd:{KEY}");
    assert_eq!(waiting.get("/ready"), (503, format!("{message}\n")));
    assert_eq!(
        log_count(&waiting, &format!("{message}: nothing is served until then")),
        1
    );
    assert_eq!(waiting.get("/live").0, 200);
    let shown = waiting.command(&["status"]).stdout;
    assert!(
        shown.contains("nothing in force yet, the store does not answer: "),
        "{shown}"
    );
    assert_eq!(waiting.command(&["reload"]).code, Some(1), "there is nothing to read");
    etcd.begin();
    eventually("the text comes", || waiting.get("/ready").0 == 200);
    assert_eq!(reached(&waiting), "server");
    assert_eq!(log_lines(&waiting, "listening", 1)[0]["listener"], "l");
    eventually("both report it", || {
        ["known", "unknown"]
            .iter()
            .all(|name| status(&etcd, name)["in_force"]["revision"] == revision)
    });
    assert_eq!(started.reloads(), (0.0, 0.0), "it had this text already");
}

#[test]
fn a_start_with_a_broken_text_uses_the_last_valid_one_and_says_why() {
    let server = Server::named("server");
    let etcd = Etcd::start();
    let revision = etcd.put(KEY, &text(&server));
    let states = TempDir::new().unwrap();
    let known = states.path().join("known");
    Proxy::start(&bootstrap(&etcd, "known", &known, "")).stop();
    // `taken` is valid, but something else listens at its address.
    let occupant = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = text(&server).replace("127.0.0.1:0", &occupant.local_addr().unwrap().to_string());
    for (broken, why) in [("nonsense", "TOML"), (&taken, "Address already in use")] {
        etcd.put(KEY, broken);
        let proxy = Proxy::start(&bootstrap(&etcd, "known", &known, ""));
        assert_eq!(reached(&proxy), "server");
        // The status of the earlier process is there until this one has written its own.
        eventually("the status shows the error and the text in force", || {
            let status = status(&etcd, "known");
            let error = status["error"]["message"].as_str().unwrap_or_default();
            error.contains(why) && status["in_force"]["revision"] == revision
        });
    }
    let waiting = Proxy::setup(&bootstrap(&etcd, "new", &states.path().join("new"), "")).launch();
    assert_eq!(waiting.get("/ready").0, 503);
    assert!(wait_for_refusal(&etcd, "new").contains("Address already in use"));
}

#[test]
fn sections_of_several_keys_are_merged_and_a_duplicate_is_an_error() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    let (listeners, pools) = text(&first)
        .split_once("[pools")
        .map(|(a, b)| (a.to_owned(), format!("[pools{b}")))
        .unwrap();
    etcd.put(&format!("{KEY}/listeners"), &listeners);
    let pools_key = format!("{KEY}/pools.json");
    etcd.put(
        &pools_key,
        &format!(r#"{{"pools": {{"p": {{"servers": ["{}"]}}}}}}"#, first.address),
    );
    etcd.put(&format!("{KEY}-of-others"), "nonsense");
    etcd.put(&format!("{KEY}/status/old"), "nonsense");
    let state = TempDir::new().unwrap();
    let proxy = Proxy::start(&bootstrap(&etcd, "one", state.path(), ""));
    assert_eq!(reached(&proxy), "first");
    eventually("the status counts both keys", || {
        status(&etcd, "one")["in_force"]["keys"] == 2
    });
    etcd.put(&format!("{KEY}/more"), &pools);
    let error = wait_for_refusal(&etcd, "one");
    assert!(
        error.contains("`[pools.p]` is in two keys")
            && error.contains(&format!("etcd:{KEY}/more"))
            && error.contains(&format!("etcd:{KEY}/pools.json")),
        "{error}"
    );
    etcd.delete(&pools_key);
    eventually("each section is in one key again", || {
        status(&etcd, "one")["error"].is_null()
    });
    etcd.put(
        &format!("{KEY}/more"),
        &text(&second).replace("[listeners.l]", "[listeners.m]"),
    );
    eventually("a listener of another key is there", || {
        proxy.answer(&["status"])["listeners"].as_array().unwrap().len() == 2
    });
    assert_eq!(reached(&proxy), "second");
}

#[test]
fn check_reads_the_text_and_shows_its_errors_with_key_and_line() {
    let server = Server::named("server");
    let mut etcd = Etcd::start();
    let state = TempDir::new().unwrap();
    let file = bootstrap(&etcd, "one", state.path(), "");
    let done = with_file("check", &file);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("there is no such key, and none below it")
            && done.stderr.contains(&format!("etcdctl put {KEY} < FILE")),
        "{done:#?}"
    );
    etcd.put(KEY, &text(&server));
    let done = with_file("check", &file);
    let expected = format!("edge.toml with etcd:{KEY}: 1 listener, 1 pool, 1 server: fine\n");
    assert_eq!((done.code, &*done.stdout, &*done.stderr), (Some(0), &*expected, ""));
    etcd.put(KEY, &(text(&server) + "[log]\nlevel = \"info\"\n"));
    let done = with_file("check", &file);
    assert!(
        done.code == Some(1)
            && done.stderr.contains("`log` is not taken from the store")
            && done.stderr.contains(&format!("etcd:{KEY}:6:2")),
        "{done:#?}"
    );
    let done = with_file("check", &(file.clone() + "[defaults]\nretries = 1\n"));
    assert!(done.stderr.contains("`defaults` is beside `[remote]`"), "{done:#?}");
    etcd.stop();
    let done = with_file("check", &file);
    assert!(
        done.code == Some(3) && done.stderr.contains("cannot read the configuration: cannot connect to"),
        "{done:#?}"
    );
}

#[test]
fn a_text_runs_no_command_and_names_no_file_unless_the_machine_allows_it() {
    let server = Server::named("server");
    let etcd = Etcd::start();
    let directory = TempDir::new().unwrap();
    let allowed = directory.path().join("allowed");
    fs::create_dir(&allowed).unwrap();
    fs::write(directory.path().join("secret"), "10.0.0.1\n").unwrap();
    std::os::unix::fs::symlink(directory.path().join("secret"), allowed.join("link")).unwrap();
    fs::write(allowed.join("networks"), "127.0.0.0/8\n").unwrap();
    let with_list = |path: &str| {
        let guard = format!("[guards.g]\nallow_file = {path:?}\n");
        text(&server).replace("pool = \"p\"\n", "pool = \"p\"\nguards = \"g\"\n") + &guard
    };
    let at = |name: &str| allowed.join(name).display().to_string();
    let check = "[pools.p.health]\ncheck = \"exec\"\ncommand = \"/bin/true\"\n";
    let file = |more: &str| bootstrap(&etcd, "one", directory.path(), more);
    let (allows_nothing, allows_files) = (file(""), file(&format!("allow = [\"files:{}/\"]", allowed.display())));
    let allows_commands = file("allow = [\"exec\"]");
    let (no_commands, no_files) = ("commands are not taken", "the store may not name this file");
    for (text, file, refused) in [
        (text(&server) + check, &allows_nothing, Some(no_commands)),
        (text(&server) + check, &allows_files, Some(no_commands)),
        (text(&server) + check, &allows_commands, None),
        (with_list(&at("networks")), &allows_nothing, Some(no_files)),
        (with_list(&at("networks")), &allows_commands, Some(no_files)),
        (with_list(&at("networks")), &allows_files, None),
        (with_list(&at("link")), &allows_files, Some(no_files)),
        (
            with_list(&at("../secret")),
            &allows_files,
            Some("the path is not absolute, or has `..`"),
        ),
        (
            with_list("networks"),
            &allows_files,
            Some("the path is not absolute, or has `..`"),
        ),
        (
            text(&server).replace(
                "127.0.0.1:0",
                &format!("unix:{}", directory.path().join("l.sock").display()),
            ),
            &allows_files,
            Some(no_files),
        ),
        (
            text(&server).replace(&server.address.to_string(), "unix:/run/docker.sock"),
            &allows_files,
            Some(no_files),
        ),
    ] {
        etcd.put(KEY, &text);
        let done = with_file("check", file);
        match refused {
            None => assert_eq!((done.code, &*done.stderr), (Some(0), ""), "{text}"),
            Some(why) => assert!(done.code == Some(1) && done.stderr.contains(why), "{text}: {done:#?}"),
        }
    }
}

#[test]
fn errors_written_to_the_store_do_not_quote_file_contents() {
    let server = Server::named("server");
    let etcd = Etcd::start();
    let directory = TempDir::new().unwrap();
    let list = directory.path().join("list");
    fs::write(&list, "10.0.0.0/8\nhunter2\n").unwrap();
    etcd.put(KEY, &text(&server));
    let file = bootstrap(
        &etcd,
        "one",
        directory.path(),
        &format!("allow = [\"files:{}\"]", directory.path().display()),
    );
    let proxy = Proxy::start(&file);
    etcd.put(KEY, &(text(&server) + &format!("[guards.g]\nallow_file = {list:?}\n")));
    let error = wait_for_refusal(&etcd, "one");
    assert!(
        error.contains("line 2: not a network") && !error.contains("hunter2"),
        "{error}"
    );
    let certificate = format!("tls = {{ certificates = [{{ cert = {list:?} }}] }}\n");
    fs::write(&list, "-----BEGIN hunter2\n").unwrap();
    etcd.put(
        KEY,
        &text(&server).replace("pool = \"p\"\n", &format!("pool = \"p\"\n{certificate}")),
    );
    let error = wait_for("the file of TLS is refused", || {
        Some(wait_for_refusal(&etcd, "one")).filter(|error| error.contains("listeners.l.tls"))
    });
    assert!(
        error.contains("cannot be used: see the log") && !error.contains("hunter2"),
        "{error}"
    );
    etcd.put(KEY, &text(&server));
    eventually("the text is valid again", || status(&etcd, "one")["error"].is_null());
    proxy.rewrite(&format!("hunter2 = 1\n{file}"));
    proxy.signal(Signal::HUP);
    let error = wait_for_refusal(&etcd, "one");
    assert_eq!(error, "1 problem in the file on this machine: see its log\n");
}

#[test]
fn sighup_and_the_command_read_the_file_and_the_stored_text() {
    let (first, second) = (Server::named("first"), Server::named("second"));
    let etcd = Etcd::start();
    etcd.put(KEY, &text(&first));
    etcd.put("/acequia/core", &text(&second));
    let state = TempDir::new().unwrap();
    let file = bootstrap(&etcd, "one", state.path(), "");
    let proxy = Proxy::start(&file);
    assert_eq!(reached(&proxy), "first");
    assert!(proxy.reload(&file.replace(KEY, "/acequia/core")));
    assert_eq!(reached(&proxy), "second");
    etcd.put("/acequia/core", &text(&first));
    eventually("the other text is followed now", || reached(&proxy) == "first");
    let plain = text(&second).replace("[listeners.l]", "[listeners.plain]");
    assert!(proxy.reload(&plain), "a file without `[remote]`");
    assert_eq!(reached(&proxy), "second");
    assert!(proxy.answer(&["status"])["remote"].is_null());
    assert!(proxy.reload(&file));
    assert_eq!(reached(&proxy), "first");
    etcd.put("/acequia/other", &text(&second));
    proxy.rewrite(&file.replace(KEY, "/acequia/other"));
    let done = proxy.command(&["reload"]);
    assert_eq!((done.code, &*done.stderr), (Some(0), ""));
    assert_eq!(reached(&proxy), "second");
}
