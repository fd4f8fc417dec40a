//! The directory of an ACME account and of its certificates, and what goes wrong with it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::acme::{Site, listed, orders, wait_until_issued};
use crate::support::proxy::{Proxy, Setup};
use crate::support::{eventually, wait_for};
use serde_json::{Value, json};

/// A proxy in a mount namespace of its own, in which these shell commands run before the proxy starts. `$STATE` is the
/// state directory.
fn after(commands: &str, site: &Site, config: &str) -> Setup {
    let script = format!("STATE={}; {commands} && exec \"$@\"", site.state.path().display());
    Proxy::setup(config).under(&["unshare", "--map-root-user", "--mount", "sh", "-ec", &script, "sh"])
}

/// The error of the first failed order.
fn failure(proxy: &Proxy) -> String {
    let renewal = wait_for("an order has failed", || {
        Some(listed(proxy)["renewal"].clone()).filter(|renewal| renewal["failures"] == 1)
    });
    renewal["error"].as_str().unwrap().to_owned()
}

#[test]
fn while_the_disk_is_full_nothing_is_ordered() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let config = site.config(&pebble, "", &["shop.example"]);
    let proxy = after("mount -t tmpfs -o size=128k none $STATE", &site, &config).start();
    wait_until_issued(&proxy);
    let state_of_proxy = format!("/proc/{}/root{}", proxy.pid(), site.state.path().display());
    let ballast = Path::new(&state_of_proxy).join("ballast");
    assert_eq!(
        fs::write(&ballast, vec![0; 1 << 18]).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    proxy.answer(&["cert", "renew", "shop.example"]);
    let error = failure(&proxy);
    assert!(
        error.contains("nothing can be written in ") && error.contains("No space left"),
        "{error}"
    );
    assert_eq!(pebble.issued(), 1);
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
    fs::remove_file(&ballast).unwrap();
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("another is issued", || orders(&proxy, "ok") == 2.0);
    assert_eq!(pebble.issued(), 2);
}

#[test]
fn certificates_of_a_read_only_directory_are_served_after_a_restart() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let runtime = format!("[runtime]\nstate_dir = {:?}\n", site.state.path());
    let config = runtime + &site.config(&pebble, "", &["shop.example"]);
    let proxy = Proxy::start(&config);
    wait_until_issued(&proxy);
    drop(proxy);
    let read_only = "mount --bind $STATE $STATE && mount -o remount,bind,ro $STATE";
    let proxy = after(read_only, &site, &config).start();
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
    let is_reported = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN" && message.contains("so no certificate is ordered: Read-only file system")
    };
    assert!(proxy.log().iter().any(is_reported), "{:#?}", proxy.log());
    let unsaved = proxy.answer(&["status"])["unsaved"].clone();
    assert!(
        unsaved[0].as_str().unwrap().contains("Read-only file system"),
        "{unsaved}"
    );
    proxy.answer(&["cert", "renew", "shop.example"]);
    assert!(failure(&proxy).contains("Read-only file system"));
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn a_directory_that_was_removed_is_made_again_by_the_next_order() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let directory = site.state.path().join("pebble");
    let config = site.config(&pebble, "", &["shop.example"]);
    let config = config.replace(&format!("{:?}", site.state.path()), &format!("{directory:?}"));
    let proxy = Proxy::start(&config);
    wait_until_issued(&proxy);
    fs::remove_dir_all(&directory).unwrap();
    proxy.answer(&["cert", "renew", "shop.example"]);
    eventually("another is issued", || orders(&proxy, "ok") == 2.0);
    assert!(directory.join("account.json").exists());
}

/// An ordinary open(2) of a FIFO blocks.
#[test]
fn nothing_waits_for_an_account_file_that_is_a_fifo() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let file = site.state.path().join("account.json");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let proxy = Proxy::start(&site.config(&pebble, "", &["shop.example"]));
    let error = failure(&proxy);
    assert!(error.contains("account.json: not a regular file"), "{error}");
    assert_eq!(proxy.get("/live").0, 200);
}

/// If the hardware clock has the local time instead of UTC, the system clock may be hours ahead until it is corrected.
/// If an order failed before the correction, the saved time of the next attempt is further away than the saved pause.
#[test]
fn an_attempt_postponed_for_hours_by_a_wrong_clock_is_due() {
    let site = Site::new();
    let pebble = site.pebble().start();
    let file = site.state.path().join("attempts.json");
    let write = |pause_seconds: u64| {
        let next = SystemTime::now() + Duration::from_secs(11 * 3600);
        let next = next.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let attempt = json!({ "failures": 3, "next": next, "pause": pause_seconds, "error": "from the future" });
        fs::write(&file, json!({ "shop.example": attempt }).to_string()).unwrap();
    };
    let config = site.config(&pebble, "", &["shop.example"]);
    write(12 * 3600); // longer than the 11 hours until the attempt
    let proxy = Proxy::start(&config);
    eventually("the attempt is known", || listed(&proxy)["renewal"]["failures"] == 3);
    assert_eq!(pebble.issued(), 0, "a pause of 12 hours is kept");
    let status = proxy.command(&["status"]).stdout;
    assert!(
        status.contains("shop.example: 3 failed orders, the latest: from the future"),
        "{status}"
    );
    drop(proxy);
    write(240);
    let proxy = Proxy::start(&config);
    wait_until_issued(&proxy);
    eventually("the status has no failed order", || {
        !proxy.command(&["status"]).stdout.contains("failed order")
    });
}

/// Only acequia writes the file of a certificate from ACME, so acequia must replace a broken one.
#[test]
fn a_broken_file_at_the_start_causes_a_new_order() {
    let site = Site::new();
    let pebble = site.pebble().start();
    fs::write(
        site.state.path().join("shop.example.pem"),
        "-----BEGIN CERTIFICATE-----\nMII",
    )
    .unwrap();
    let proxy = Proxy::start(&site.config(&pebble, "", &["shop.example"]));
    wait_until_issued(&proxy);
    assert_eq!(site.read(&pebble, "shop.example").unwrap(), b"hello");
    let is_reported = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        message.contains("shop.example.pem: not whole: ") && message.ends_with(": another certificate is ordered")
    };
    assert_eq!(proxy.log().iter().filter(|line| is_reported(line)).count(), 1);
}
