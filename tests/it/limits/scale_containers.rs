//! Pools that grow and shrink by containers of a real Docker engine.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::scale::clones;
use crate::support::client::Client;
use crate::support::counts::{log_count, log_lines};
use crate::support::docker::{Docker, PORT};
use crate::support::proxy::Proxy;
use crate::support::{eventually, wait_for};

/// The label of all containers that acequia has created.
const OURS: &str = "acequia.instance";

/// The shell script of a clone: a server that sends `$GREETING` to each client, and that ends at SIGTERM.
const PROGRAM: &str = "echo serving at $PORT; trap 'echo ending; exit 0' TERM; \
                       nc -ll -p $PORT -e sh -c 'echo -n \"$GREETING\"; cat > /dev/null' & wait";

/// An engine with a network `app` and an image `app`. `None`: containers cannot run here.
fn engine() -> Option<Docker> {
    let docker = Docker::start()?;
    docker.run(&["network", "create", "--subnet", "10.97.3.0/24", "app"]);
    docker.make_image("app", PROGRAM);
    Some(docker)
}

/// A listener `l` with a pool `app` of containers; `keys` are lines of its section `scale`.
fn config(docker: &Docker, state_dir: &Path, keys: &str) -> String {
    let socket = docker.socket();
    format!(
        "[runtime]\nworkers = 2\nstate_dir = {state_dir:?}\n[providers.docker]\nsocket = {socket:?}\n[listeners.l]\n\
         bind = \"127.0.0.1:0\"\npool = \"app\"\n[pools.app]\nhealth = {{ interval = \"200ms\" }}\n[pools.app.scale]\n\
         up_after = \"1s\"\ndown_after = \"1s\"\ncooldown = \"1s\"\n{keys}\n"
    )
}

/// The key `docker` of the section `scale`, with this image.
fn docker_key(image: &str) -> String {
    format!(
        "docker = {{ image = \"{image}\", port = {PORT}, network = \"app\", env = {{ GREETING = \"{{name}} of {{pool}}\" }} }}"
    )
}

/// The container names of the running clones.
fn running(proxy: &Proxy) -> Vec<String> {
    let clones = clones(proxy).into_iter();
    let running = clones.filter(|clone| clone["state"] == "running");
    running
        .map(|clone| clone["container"].as_str().unwrap().to_owned())
        .collect()
}

fn wait_for_running(proxy: &Proxy, wanted: usize) -> Vec<String> {
    wait_for("the expected number of clones runs", || {
        Some(running(proxy)).filter(|running| running.len() == wanted)
    })
}

/// A client, and the greeting of its clone, such as `app-1 of app`: 12 bytes.
fn client(proxy: &Proxy) -> (Client, String) {
    let mut client = Client::connect(proxy.at("l"));
    let greeting = String::from_utf8(client.read(12)).unwrap();
    (client, greeting)
}

/// The keeper: the child process of acequia that removes the containers of clones when acequia has ended.
fn keeper(proxy: &Proxy) -> Option<Pid> {
    let pid = proxy.pid();
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .filter_map(Result::ok);
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let children = children.collect::<String>();
    children
        .split_whitespace()
        .find_map(|pid| Pid::from_raw(pid.parse().ok()?))
}

#[test]
fn a_pool_grows_by_containers_and_none_remains_when_acequia_is_killed() {
    let Some(docker) = engine() else { return };
    let state = tempfile::tempdir().unwrap();
    let keys = format!("min = 1\nmax = 3\nsessions_per_server = 2\n{}", docker_key("app"));
    let proxy = Proxy::start(&config(&docker, state.path(), &keys));
    let mut held = Vec::new();
    for clones in 2..=3 {
        let places_before = 2 * (clones - 1);
        while held.len() <= places_before {
            let (client, greeting) = client(&proxy);
            assert!(
                greeting.starts_with("app-") && greeting.ends_with(" of app"),
                "{greeting}"
            );
            held.push(client);
        }
        wait_for_running(&proxy, clones);
    }
    assert_eq!(docker.names_of(OURS), wait_for_running(&proxy, 3));
    let last = clones(&proxy).pop().unwrap();
    let address = last["address"].as_str().unwrap();
    assert!(
        address.starts_with("10.97.3.") && address.ends_with(&format!(":{PORT}")),
        "{last}"
    );
    eventually("new sessions go to new clones", || client(&proxy).1 != "app-1 of app");
    drop(held);
    let remaining = wait_for_running(&proxy, 1);
    eventually("the other containers are removed", || {
        docker.names_of(OURS) == remaining
    });
    let printed = |text: &str| {
        let log = proxy.log();
        log.iter()
            .filter(|line| line["message"] == "printed by a clone" && line["line"] == text)
            .count()
    };
    assert_eq!(
        (printed(&format!("serving at {PORT}")), printed("ending")),
        (3, 2),
        "{:#?}",
        proxy.log()
    );

    docker.run(&["kill", &remaining[0]]);
    let replacement = wait_for("another container runs", || {
        Some(running(&proxy)).filter(|now| now.len() == 1 && *now != remaining)
    });
    let clone = &clones(&proxy)[0];
    assert_eq!(
        (&clone["restarts"], &clone["reason"]),
        (&1.into(), &"exit status 137".into()),
        "{clone}"
    );
    eventually("the killed container is removed", || {
        docker.names_of(OURS) == replacement
    });

    // Containers continue to run when the keeper is killed, and acequia soon starts another keeper.
    let first = keeper(&proxy).unwrap();
    kill_process(first, Signal::KILL).unwrap();
    eventually("there is another keeper", || {
        keeper(&proxy).is_some_and(|pid| pid != first)
    });
    assert_eq!(running(&proxy), replacement);
    proxy.signal(Signal::KILL);
    eventually("no container is left", || docker.names_of(OURS).is_empty());
    let failed: Vec<_> = proxy
        .access()
        .into_iter()
        .filter(|line| !["client_closed", "server_closed"].contains(&line["ending"].as_str().unwrap()))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn the_next_start_removes_only_containers_left_by_a_crash() {
    let Some(docker) = engine() else { return };
    let (state, other_state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keys = format!("min = 1\nmax = 1\nsessions_per_server = 2\n{}", docker_key("app"));
    let start = |state: &Path| {
        let proxy = Proxy::start(&config(&docker, state, &keys));
        let running = wait_for_running(&proxy, 1);
        (proxy, running)
    };
    let (killed, orphans) = start(state.path());
    let (_other, others) = start(other_state.path());
    // After SIGSTOP, acequia starts no other keeper. So nothing removes the containers.
    killed.signal(Signal::STOP);
    kill_process(keeper(&killed).unwrap(), Signal::KILL).unwrap();
    killed.signal(Signal::KILL);
    assert_eq!(killed.wait().code, None);
    assert!(docker.names_of(OURS).contains(&orphans[0]));

    let (next, of_next) = start(state.path());
    log_lines(&next, "containers that a crash had left behind are removed", 1);
    let mut expected = [others, of_next].concat();
    expected.sort();
    assert_eq!(docker.names_of(OURS), expected);
    assert_eq!(next.stop().code, Some(0));
    assert_eq!(
        fs::read_dir(state.path().join("clones")).unwrap().count(),
        0,
        "expected no record of containers that a crash could leave behind"
    );
}

#[test]
fn an_unreachable_engine_changes_nothing_and_a_missing_image_is_reported() {
    let Some(mut docker) = engine() else { return };
    let state = tempfile::tempdir().unwrap();
    let keys = format!("min = 1\nmax = 2\nsessions_per_server = 10\n{}", docker_key("app"));
    let text = config(&docker, state.path(), &keys);
    let proxy = Proxy::start(&text);
    let first = wait_for_running(&proxy, 1);
    let (mut session, _) = client(&proxy);
    docker.stop_engine();
    log_lines(
        &proxy,
        "cannot follow the container of a clone, which may still be running",
        1,
    );
    assert_eq!((running(&proxy), client(&proxy).1), (first, "app-1 of app".to_owned()));
    assert_eq!(proxy.command(&["pool", "scale", "app", "2"]).code, Some(0));
    let failed = log_lines(&proxy, "a clone cannot be started", 1)[0]["reason"].clone();
    assert!(failed.as_str().unwrap().contains("docker.sock"), "{failed}");
    docker.start_engine();
    wait_for_running(&proxy, 2);
    log_lines(&proxy, "the container of a clone is followed again", 1);
    assert_eq!(session.finish().try_read_all().unwrap(), b"", "the session has gone on");
    assert_eq!(proxy.command(&["pool", "scale", "app", "1"]).code, Some(0));
    wait_for_running(&proxy, 1);

    // At port 1 there is no registry.
    assert!(proxy.reload(&text.replace("\"app\", port", "\"127.0.0.1:1/app:2\", port")));
    assert_eq!(running(&proxy).len(), 1);
    let before = log_count(&proxy, "a clone cannot be started");
    assert_eq!(proxy.command(&["pool", "scale", "app", "2"]).code, Some(0));
    let reason = wait_for("the failure is reported", || {
        let log = proxy.log();
        let mut failed = log.iter().filter(|line| line["message"] == "a clone cannot be started");
        failed
            .nth(before)
            .map(|line| line["reason"].as_str().unwrap().to_owned())
    });
    assert!(
        reason.starts_with("image `127.0.0.1:1/app:2` is not there and cannot be pulled: ")
            && reason.contains("refused"),
        "{reason}"
    );
    assert_eq!(proxy.stop().code, Some(0));
    assert!(docker.names_of(OURS).is_empty());
}
