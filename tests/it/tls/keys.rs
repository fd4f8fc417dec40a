//! Private keys stay private.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::site::Site;
use crate::support::authority::replace;
use crate::support::eventually;
use crate::support::proxy::{Proxy, check};
use crate::support::server::Server;

#[test]
fn check_warns_about_keys_that_others_can_read() {
    let site = Site::new();
    let config = site.config("127.0.0.1:9".parse().unwrap(), "", "");
    assert_eq!(check(&config).stderr, "");
    let key = site.directory().join("other.key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let warning = format!(
        "other users may read the key in {} (mode 0644): `chmod go-w,o-r` it",
        key.display()
    );
    let checked = check(&config);
    assert!(checked.stderr.contains(&warning), "{checked:?}");
}

#[test]
fn no_private_key_appears_in_log_errors_or_api() {
    let (site, server) = (Site::new(), Server::named("hello"));
    let secret = site.authority.issue(&["secret.example"]).key;
    let secret_line = secret.lines().nth(1).unwrap().to_owned();
    let file = site.directory().join("shop.key");
    let config = site.config(server.address, "", "");
    let proxy = Proxy::start(&config);
    // A whole key that fits no certificate, half a key, and a key labeled as a public one.
    let broken = [
        &*secret,
        &secret[..secret.len() / 2],
        &secret.replace("PRIVATE", "PUBLIC"),
    ];
    for (number, text) in (1..).zip(broken) {
        replace(&file, text);
        let reloaded = proxy.command(&["cert", "reload"]);
        assert!(
            reloaded.code == Some(1) && reloaded.stderr.contains("shop.key"),
            "{reloaded:?}"
        );
        let checked = check(&config);
        assert_eq!(checked.code, Some(1));
        eventually("the log tells that the key file is broken", || {
            let is_warning =
                |line: &serde_json::Value| line["error"].as_str().is_some_and(|error| error.contains("shop.key"));
            proxy.log().iter().filter(|line| is_warning(line)).count() >= number
        });
        let log: Vec<_> = proxy.log().iter().map(ToString::to_string).collect();
        let shown = [
            reloaded.stdout + &reloaded.stderr,
            checked.stdout + &checked.stderr,
            log.concat(),
            proxy.answer(&["status"]).to_string(),
            proxy.answer(&["cert", "list"]).to_string(),
            proxy.get("/metrics").1,
        ];
        for text in shown {
            assert!(!text.contains(&secret_line), "a key is shown: {text}");
        }
    }
}
