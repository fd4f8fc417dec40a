//! The primary remembered in `state_dir`: a failed read and a downgrade do not lose it, and a second process cannot
//! overwrite it.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;

use super::redis::{RememberingPair, config, has_state, is_written, reason};
use crate::support::eventually;
use crate::support::process::finished;
use crate::support::proxy::{Proxy, acequia, config_directory};
use crate::support::sentinel::RedisNode;

#[test]
fn an_old_primary_stays_out_after_an_unreadable_file_and_a_downgrade() {
    let RememberingPair {
        old,
        new,
        state,
        text,
        proxy,
    } = RememberingPair::failed_over();
    proxy.stop();
    new.freeze();
    old.thaw();

    let (file, aside) = (state.path().join("primaries.json"), state.path().join("aside"));
    fs::rename(&file, &aside).unwrap();
    symlink(&file, &file).unwrap(); // reading it fails: too many levels of symbolic links
    let directory = config_directory("acequia.toml", &text);
    let failed = finished(acequia(&["run"]).current_dir(directory.path()));
    assert_eq!(failed.code, Some(3), "{failed:#?}");
    assert!(failed.stderr.contains(&file.display().to_string()), "{failed:#?}");
    assert_eq!(fs::read_link(&file).unwrap(), file, "it is left as it is");
    fs::remove_file(&file).unwrap();

    // The downgrade: a later version of acequia has added a key.
    let mut known: serde_json::Value = serde_json::from_slice(&fs::read(&aside).unwrap()).unwrap();
    for pool in known.as_object_mut().unwrap().values_mut() {
        pool["since"] = "2030-01-01".into();
    }
    fs::write(&file, known.to_string()).unwrap();
    let proxy = Proxy::start(&text);
    eventually("the new primary is down, and the old one stays out", || {
        has_state(&proxy, "primary", &new, "down") && reason(&proxy, "primary", &old).contains("a second primary")
    });
    assert!(!is_written(proxy.at("primary"), "lost"));
    new.thaw();
    eventually("writers reach the new primary again", || {
        is_written(proxy.at("primary"), "again")
    });
}

#[test]
fn an_old_primary_stays_out_when_an_operator_exchanges_the_names() {
    let RememberingPair {
        old,
        new,
        state: _state,
        text,
        proxy,
    } = RememberingPair::failed_over();
    old.thaw();
    let (old_address, new_address) = (old.address().to_string(), new.address().to_string());
    let named = |old_name: &str, new_name: &str| {
        let entry = |name: &str, address: &str| format!("{{ address = {address:?}, name = {name:?} }}");
        let servers = format!("[{}, {}]", entry(old_name, &old_address), entry(new_name, &new_address));
        text.replace(&format!("{:?}", [&old_address, &new_address]), &servers)
    };
    let is_second = |proxy: &Proxy, name: &str, first: &str| {
        let server = proxy.server("primary", name);
        server["reason"] == format!("a second primary: {first} is the first")
    };
    assert!(proxy.reload(&named("db1", "db2")));
    eventually("the names are known", || {
        proxy.server("primary", "db2")["health"] == "up" && is_second(&proxy, "db1", "db2")
    });
    assert!(proxy.reload(&named("db2", "db1")));
    eventually("the new primary is used under the other name", || {
        proxy.server("primary", "db1")["health"] == "up" && is_second(&proxy, "db2", "db1")
    });
    assert!(is_written(proxy.at("primary"), "exchanged"));
    assert_eq!(new.ask("EXISTS exchanged"), ":1\r\n");
    proxy.stop();
    let proxy = Proxy::start(&named("db1", "db2"));
    eventually("the new primary is used after a restart with the first names", || {
        proxy.server("primary", "db2")["health"] == "up" && is_second(&proxy, "db1", "db2")
    });
    assert!(is_written(proxy.at("primary"), "restarted"));
    assert_eq!(new.ask("EXISTS restarted"), ":1\r\n");
}

#[test]
fn a_second_primary_is_reported_while_the_first_one_has_too_many_clients() {
    let pair = RememberingPair::start();
    let RememberingPair { old, new, proxy, .. } = &pair;
    // A check that is refused may fail instead, if `old` resets its connection before the refusal is read. One failed
    // check must not make `old` down: then `old` would no longer count as a primary.
    assert!(proxy.reload(&pair.text.replace("fall = 1", "fall = 3")));
    eventually("both roles are known", || {
        has_state(proxy, "primary", old, "up") && has_state(proxy, "replica", new, "up")
    });
    let _client = TcpStream::connect(old.address()).unwrap();
    old.ask("CONFIG SET maxclients 1");
    eventually("the check is refused", || {
        proxy.metrics().sum(
            "acequia_health_checks_total",
            &[("pool", "primary"), ("result", "refused")],
        ) >= 1.0
    });
    new.ask("REPLICAOF NO ONE");
    eventually("both are reported", || {
        proxy.metrics().sum("acequia_pool_primaries", &[("pool", "primary")]) == 2.0
    });
}

#[test]
fn a_state_directory_belongs_to_one_process_and_is_free_after_a_kill() {
    let state = tempfile::tempdir().unwrap();
    let server = RedisNode::start(&[]);
    let text = format!("[runtime]\nstate_dir = {:?}\n", state.path()) + &config(&[&server], "");
    let proxy = Proxy::start(&text);
    eventually("the primary is remembered", || {
        state.path().join("primaries.json").exists()
    });
    let directory = config_directory("acequia.toml", &(text.clone() + "[admin]\nsocket = \"off\"\n"));
    let run = |command: &str| finished(acequia(&[command]).current_dir(directory.path()));
    let failed = run("run");
    assert_eq!(failed.code, Some(3), "{failed:#?}");
    let expected = format!(
        "cannot use `state_dir`: {}: another acequia uses it",
        state.path().display()
    );
    assert!(failed.stderr.contains(&expected), "{failed:#?}");
    assert_eq!(run("check").code, Some(0), "`acequia check` needs no lock");
    assert!(
        proxy.reload(&(text.clone() + "[log]\nlevel = \"warn\"\n")),
        "a reload needs no lock"
    );
    drop(proxy); // SIGKILL
    let proxy = Proxy::start(&text);
    eventually("the primary is up", || has_state(&proxy, "primary", &server, "up"));
}

#[test]
fn a_primary_that_cannot_be_saved_is_reported_in_metrics_and_status() {
    let RememberingPair {
        old, new, state, proxy, ..
    } = RememberingPair::start();
    let file = state.path().join("primaries.json");
    eventually("the primary is remembered", || file.exists());
    let unsaved = || proxy.metrics().sum("acequia_state_dir_unsaved", &[]);
    assert_eq!(unsaved(), 0.0);
    // Repeated, because the removal fails if acequia writes another file there at the same time.
    eventually("the directory is gone", || {
        let _ = fs::remove_dir_all(state.path());
        !state.path().exists()
    });
    new.ask("REPLICAOF NO ONE");
    old.ask(&format!("REPLICAOF 127.0.0.1 {}", new.address().port()));
    eventually("there is another primary", || has_state(&proxy, "primary", &new, "up"));
    eventually("the file cannot be written", || unsaved() == 1.0);
    let printed = proxy.command(&["status"]).stdout;
    let expected = format!(
        "not saved, and forgotten by a restart: {}: No such file or directory",
        file.display()
    );
    assert!(printed.contains(&expected), "{printed}");
}

#[test]
fn the_start_fails_with_an_invalid_file_of_primaries() {
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("primaries.json");
    let text = format!(
        "[runtime]\nstate_dir = {:?}\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[pools.p]\n\
         servers = [\"127.0.0.1:9\"]\n",
        state.path()
    );
    let directory = config_directory("acequia.toml", &text);
    for contents in ["", "{\"primary\": {"] {
        fs::write(&file, contents).unwrap();
        let failed = finished(acequia(&["run"]).current_dir(directory.path()));
        assert_eq!(failed.code, Some(3), "{failed:#?}");
        let expected = "primaries.json are not valid: restore the file, or remove it to begin without a known primary";
        assert!(failed.stderr.contains(expected), "{failed:#?}");
        assert_eq!(fs::read_to_string(&file).unwrap(), contents, "it is left as it is");
    }
}
