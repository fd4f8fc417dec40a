//! `acequia demo`: the commands that it prints work as printed, and Ctrl-C ends it cleanly. `acequia top`, which needs
//! a terminal, is not tried here.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;

/// A running demo, and the lines that it printed first.
struct Demo {
    process: Child,
    intro: Vec<String>,
    /// The lines that it prints afterwards: the rows of its table. `None`: the test has closed them.
    rows: Option<Lines<BufReader<ChildStdout>>>,
}

impl Demo {
    /// A demo without sessions of its own.
    fn start() -> Self {
        Self::start_with(&["--quiet"])
    }

    fn start_with(arguments: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_acequia"))
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut rows = BufReader::new(process.stdout.take().unwrap()).lines();
        let intro = rows.by_ref().map(Result::unwrap);
        let intro = intro.take_while(|line| !line.starts_with("Sessions")).collect();
        Self {
            process,
            intro,
            rows: Some(rows),
        }
    }

    /// The demo's directory: the one of the printed access log.
    fn directory(&self) -> PathBuf {
        let mut words = self.intro.iter().flat_map(|line| line.split(' '));
        let log = words.find(|word| word.ends_with("/access.log")).unwrap();
        Path::new(log).parent().unwrap().to_owned()
    }

    /// The printed command that contains all of these words.
    fn command(&self, words: &[&str]) -> Command {
        let has_words = |line: &&String| words.iter().all(|word| line.contains(word));
        let line = self
            .intro
            .iter()
            .find(has_words)
            .unwrap_or_else(|| panic!("no line contains {words:?}: {:#?}", self.intro));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {line}")).stdin(Stdio::null());
        command
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// The address of the page for a browser.
    fn page(&self) -> &str {
        self.intro[2].split_whitespace().last().unwrap()
    }

    /// The state that the API returns.
    fn state(&self) -> serde_json::Value {
        let state = Command::new("curl")
            .args(["-s", &format!("{}api/v1/state", self.page())])
            .output()
            .unwrap();
        serde_json::from_slice(&state.stdout).unwrap()
    }

    /// Sends SIGINT twice: the second one cuts sessions that are still open.
    fn end(&mut self) -> ExitStatus {
        let pid = Pid::from_child(&self.process);
        for _ in 0..2 {
            // It may have ended already; its PID stays reserved until `wait` reaps it.
            let _ = kill_process(pid, Signal::INT);
        }
        self.process.wait().unwrap()
    }
}

impl Drop for Demo {
    /// Ends the demo with SIGINT: after SIGKILL its directory would remain.
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            self.end();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn clients_of_the_printed_tls_commands_are_routed_by_name() {
    let demo = Demo::start();
    let answer = text(&demo.output(&["curl", "https://a."]).stdout);
    assert_eq!(answer, "server a answers a client that asked for a.demo.test\n");
    let session = demo.output(&["openssl", "x.b."]).stderr;
    assert!(text(&session).contains("acequia demo, server b"), "{}", text(&session));
    let refused = demo.output(&["curl", "https://closed."]);
    assert_eq!(refused.status.code(), Some(35)); // curl: "SSL connect error"
    assert!(
        text(&refused.stderr).contains("unrecognized name"),
        "{}",
        text(&refused.stderr)
    );
}

#[test]
fn the_printed_redirect_leads_to_a_listener_whose_port_the_system_chose() {
    let demo = Demo::start();
    let answer = text(&demo.output(&["curl", "http://a."]).stdout);
    assert_eq!(answer, "server a answers a client that asked for a.demo.test\n");
}

#[test]
fn printed_nc_commands_reach_the_server_with_the_fewest_sessions() {
    let demo = Demo::start();
    let mut greetings = Vec::new();
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = demo.command(&["nc "]);
        let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        client.stdin.as_mut().unwrap().write_all(b"agua\n").unwrap();
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        greetings.push(lines.next().unwrap().unwrap());
        assert_eq!(lines.next().unwrap().unwrap(), "agua");
        clients.push(client);
    }
    greetings.sort();
    let expected = ["one", "three", "two"].map(|name| format!("server {name} sends back what you type"));
    assert_eq!(greetings, expected);
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
}

#[test]
fn the_printed_openssl_command_reaches_the_echo_servers_by_terminated_tls() {
    let demo = Demo::start();
    let mut client = demo.command(&["openssl", "edge.demo.test"]);
    let mut client = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    client.stdin.as_mut().unwrap().write_all(b"agua\n").unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let greeting = lines.next().unwrap().unwrap();
    assert!(greeting.ends_with("sends back what you type"), "{greeting}");
    assert_eq!(lines.next().unwrap().unwrap(), "agua");
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn sessions_show_up_in_the_table_the_metrics_and_the_access_log() {
    let mut demo = Demo::start();
    assert!(demo.output(&["curl", "https://a."]).status.success());
    let row = demo
        .rows
        .as_mut()
        .unwrap()
        .find(|row| row.as_ref().unwrap().contains("+1"));
    // After the time: for each of the six servers the open sessions, and `+1` if there was a new one. The last number
    // is that of the clones. The session may be open when the row is printed.
    let row = row.unwrap().unwrap();
    let columns: Vec<_> = row.split_whitespace().skip(1).collect();
    assert!(matches!(columns[0], "0" | "1"), "{row}");
    assert_eq!(columns[1..], ["+1", "0", "0", "0", "0", "0", "0"]);
    let metrics = text(&demo.output(&["curl", "/metrics"]).stdout);
    // curl closes without reading the server's last TLS record; the kernel may answer the unread record with a reset.
    let counted = r#"acequia_sessions_total{listener="tls",pool="a",server="a",ending="client_"#;
    assert!(metrics.contains(counted), "{metrics}");
    let mut follow = demo.command(&["tail", "access.log"]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let line = BufReader::new(follow.stdout.take().unwrap())
        .lines()
        .next()
        .unwrap()
        .unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(
        line.contains(" sni=a.demo.test ") && line.contains(" ending=client_"),
        "{line}"
    );
    assert_eq!(demo.end().code(), Some(0));
}

#[test]
fn the_printed_commands_show_the_servers_and_the_sessions_and_drain_a_server() {
    let demo = Demo::start();
    let command = |words: &str| {
        let printed = demo.intro.iter().find(|line| line.contains(words)).unwrap();
        let arguments = printed.split_whitespace().skip(1);
        let output = Command::new(env!("CARGO_BIN_EXE_acequia"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{printed}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(command("acequia servers").contains("echo/one"));
    assert!(command("acequia sessions").contains("0 of 0"));
    assert!(command("acequia server drain").contains("draining"));
}

#[test]
fn the_third_line_has_the_address_of_the_page_and_its_api_shows_traffic() {
    let mut demo = Demo::start_with(&[]);
    assert!(demo.page().starts_with("http://127.0.0.1:"), "{:#?}", demo.intro);
    let has_sessions = || {
        let state = demo.state();
        let sessions = |listener: usize| state["listeners"][listener]["sessions"].as_u64().unwrap();
        sessions(0) + sessions(1) > 0
    };
    eventually("the demo has sessions of its own", has_sessions);
    assert_eq!(demo.end().code(), Some(0));
}

/// The state of the pool `app`, which starts without servers and grows with its clients.
fn growing_pool(demo: &Demo) -> serde_json::Value {
    let state = demo.state();
    let pools = state["pools"].as_array().unwrap();
    pools.iter().find(|pool| pool["name"] == "app").unwrap().clone()
}

/// The number of clones of the pool `app` that run.
fn running_clones(demo: &Demo) -> usize {
    let pool = growing_pool(demo);
    let clones = pool["scale"]["clones"].as_array().unwrap();
    clones.iter().filter(|clone| clone["state"] == "running").count()
}

#[test]
fn the_demo_pool_grows_with_the_visitors_and_shrinks_after_them() {
    let mut demo = Demo::start_with(&[]); // with sessions of its own, also of ten visitors: clients of the pool `app`
    eventually("three servers for ten visitors", || running_clones(&demo) >= 3);
    let rows = demo.rows.as_mut().unwrap().map(Result::unwrap);
    let mut counts = rows.map(|row| row.split_whitespace().last().unwrap().to_owned());
    assert!(counts.any(|count| count == "3"), "expected a row with three clones");
    eventually("the pool shrinks", || {
        growing_pool(&demo)["scale"]["down"].as_u64() > Some(0)
    });
    assert_eq!(demo.end().code(), Some(0));
}

#[test]
fn the_printed_client_wakes_the_pool_that_sleeps_and_its_server_ends_with_the_demo() {
    let mut demo = Demo::start();
    assert_eq!(
        growing_pool(&demo)["scale"]["clones"],
        serde_json::json!([]),
        "expected no clone before the first client"
    );
    let line = demo
        .intro
        .iter()
        .position(|line| line.contains("a pool that sleeps"))
        .unwrap();
    let mut client = Command::new("sh");
    client.arg("-c").arg(format!("exec {}", demo.intro[line + 1]));
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let greeting = BufReader::new(client.stdout.take().unwrap()).lines().next().unwrap();
    assert_eq!(greeting.unwrap(), "server app-1 sends back what you type");
    let server = growing_pool(&demo)["scale"]["clones"][0]["pid"].as_u64().unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    assert_eq!(demo.end().code(), Some(0));
    eventually("the server has ended", || {
        !Path::new(&format!("/proc/{server}")).exists()
    });
}

#[test]
fn the_printed_configuration_loads_and_is_removed_at_the_end() {
    let mut demo = Demo::start();
    let shown = text(&demo.output(&["cat ", "demo.toml"]).stdout);
    let loaded = acequia::config::read("demo.toml", &shown).unwrap_or_else(|report| panic!("{report}"));
    assert!(
        loaded
            .plan
            .listeners
            .iter()
            .all(|listener| listener.bind[0].port() != Some(0))
    );
    let line = demo.intro.iter().find(|line| line.contains("demo.toml")).unwrap();
    let path = Path::new(line.trim().trim_start_matches("cat ")).to_owned();
    assert!(path.exists());
    assert_eq!(demo.end().code(), Some(0));
    assert!(!path.parent().unwrap().exists());
}

#[test]
fn closing_its_output_ends_the_demo() {
    let mut demo = Demo::start();
    drop(demo.rows.take());
    assert_eq!(demo.process.wait().unwrap().code(), Some(0));
}

#[test]
fn the_demo_ends_with_its_terminal_and_removes_its_directory() {
    let mut demo = Demo::start_with(&[]); // with sessions of its own
    let directory = demo.directory();
    kill_process(Pid::from_child(&demo.process), Signal::HUP).unwrap();
    assert_eq!(demo.process.wait().unwrap().code(), Some(0));
    assert!(!directory.exists());
}

#[test]
fn only_the_owner_can_open_the_directory_of_the_demo() {
    let demo = Demo::start();
    let directory = demo.directory();
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
}
