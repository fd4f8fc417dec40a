//! `acequia top` in a terminal: it shows, sorts, filters and acts, and leaves the terminal as it was.

use std::os::unix::net::UnixStream;

use rustix::process::{Signal, kill_process};

use crate::support::api::{config, event_stream, start, tcp};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::hello::Hello;
use crate::support::process::{has_ended, state_of};
use crate::support::proxy::Proxy;
use crate::support::server::Server;
use crate::support::tmux::Tmux;

fn top(proxy: &Proxy, width: u32, height: u32, variables: &[(&str, &str)]) -> Tmux {
    let socket = proxy.directory().join("acequia/admin.sock");
    let command = format!("{} top --socket {}", env!("CARGO_BIN_EXE_acequia"), socket.display());
    let tmux = Tmux::start(width, height, variables, &command);
    tmux.wait_for("SERVER ");
    tmux
}

/// Asserts that the program has ended with this code and that the terminal is in its usual mode: [`Tmux::start`] shows
/// both. Returns the screen.
fn assert_restored(tmux: &Tmux, exit_code: i32) -> String {
    let screen = tmux.wait_for("echok"); // among the last words that `stty -a` prints
    assert!(screen.contains(&format!("exit code {exit_code}\n")), "{screen}");
    for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
        assert!(screen.split_whitespace().any(|word| word == mode), "{mode}: {screen}");
    }
    assert!(!screen.contains("SERVER "), "expected the screen before top: {screen}");
    assert!(!tmux.hides_cursor());
    screen
}

#[test]
fn top_shows_sorts_and_filters_live_servers_and_sessions() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    let screen = tmux.wait_for("servers 2 of 2 up");
    for part in ["shop/big", "shop/small", "✓ up", "SESSIONS↓", " q  quit"] {
        assert!(screen.contains(part), "{part}: {screen}");
    }
    let mut client = Client::connect(proxy.at("https"));
    client.send(&Hello::named("shop.example.com").bytes());
    tmux.wait_for("sessions 1 ");
    let is_ascending = |screen: &str| screen.find("shop/big") < screen.find("shop/small");
    tmux.press(&["<", "<", "<"]);
    assert!(is_ascending(&tmux.wait_for("SERVER↑")));
    tmux.press(&["r"]);
    assert!(!is_ascending(&tmux.wait_for("SERVER↓")));
    tmux.press(&["/", "s", "m", "a"]);
    tmux.wait_for("filter: sma");
    eventually("one server", || !tmux.screen().contains("shop/big"));
    tmux.press(&["Escape"]);
    tmux.wait_for("shop/big");
    tmux.press(&["Tab"]);
    let address = client.0.local_addr().unwrap().to_string();
    assert!(tmux.wait_for(&address).contains("CLIENT"));
    tmux.press(&["q"]);
    assert_restored(&tmux, 0);
}

#[test]
fn top_drains_a_server_and_kills_a_session_after_a_question() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    let usage = |name: &str| proxy.server("shop", name)["use"].as_str().unwrap().to_owned();
    tmux.press(&["<", "<", "<"]);
    tmux.wait_for("SERVER↑");
    tmux.press(&["d"]);
    tmux.wait_for("Drain shop/big?");
    tmux.press(&["n"]);
    eventually("no question", || !tmux.screen().contains("Drain shop/big?"));
    assert_eq!(usage("big"), "enabled");
    tmux.press(&["d", "y"]);
    tmux.wait_for("done: shop/big is draining");
    assert_eq!(usage("big"), "draining");
    tmux.wait_for("↓ draining");
    tmux.press(&["e", "y"]);
    tmux.wait_for("done: shop/big is enabled");
    assert_eq!(usage("big"), "enabled");

    let mut client = Client::connect(proxy.at("https"));
    client.send(&Hello::named("shop.example.com").bytes());
    tmux.wait_for("sessions 1 ");
    tmux.press(&["Tab"]);
    tmux.wait_for(&client.0.local_addr().unwrap().to_string());
    tmux.press(&["k"]);
    tmux.wait_for("End session ");
    tmux.press(&["y"]);
    tmux.wait_for("is ended");
    tmux.wait_for("sessions 0 ");
}

#[test]
fn top_prints_no_colors_if_the_environment_disables_them() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let is_color = |screen: &str| ["\u{1b}[38;", "\u{1b}[48;"].iter().any(|part| screen.contains(part));
    let tmux = top(&proxy, 80, 24, &[("NO_COLOR", "1")]);
    tmux.wait_for("✓ up");
    assert!(!is_color(&tmux.raw_screen()), "{:?}", tmux.raw_screen());
    let tmux = top(&proxy, 80, 24, &[("NO_COLOR", "")]);
    tmux.wait_for("✓ up");
    assert!(is_color(&tmux.raw_screen()), "{:?}", tmux.raw_screen());
}

#[test]
fn top_restores_the_terminal_on_control_c_and_signals() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    assert!(tmux.hides_cursor());
    tmux.press(&["C-c"]);
    assert_restored(&tmux, 0);
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        let tmux = top(&proxy, 80, 24, &[]);
        kill_process(tmux.child(), signal).unwrap();
        assert_restored(&tmux, 0);
    }
}

#[test]
fn top_ends_with_a_message_when_acequia_has_ended() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    proxy.signal(Signal::KILL);
    let screen = assert_restored(&tmux, 3);
    assert!(screen.contains("error: "), "{screen}");
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    proxy.signal(Signal::TERM);
    let screen = assert_restored(&tmux, 3);
    assert!(screen.contains("error: "), "{screen}");
}

#[test]
fn top_ends_with_its_terminal() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    let pid = tmux.child();
    tmux.close();
    eventually("the program has ended", || has_ended(pid));
}

#[test]
fn keys_are_harmless_in_an_empty_top() {
    let proxy = Proxy::start(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.l]\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
         [pools.p.scale]\nmin = 0\nmax = 1\nsessions_per_server = 1\ncommand = \"/bin/false\"",
    );
    for (width, height) in [(80, 24), (200, 50)] {
        let tmux = top(&proxy, width, height, &[("NO_COLOR", "1")]);
        tmux.wait_for("servers 0 of 0 up");
        for table in ["Servers 0", "Sessions 0"] {
            tmux.wait_for(table);
            tmux.press(&[
                "d", "e", "x", "k", "Enter", "Up", "Down", "PPage", "NPage", "Home", "End", "<", "r",
            ]);
            tmux.press(&["/", "a", "Enter", "Escape", "?"]);
            let help_lines = || tmux.screen().lines().filter(|line| line.contains('│')).count();
            eventually("no line of the help is broken", || help_lines() == 13); // the lines of `KEYS` of src/cli/top.rs
            tmux.press(&["?", "Tab"]);
            eventually("the help has gone", || help_lines() == 0);
        }
        tmux.press(&["q"]);
        assert_restored(&tmux, 0);
    }
}

#[test]
fn top_works_through_the_admin_port_and_needs_the_token_to_act() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = Proxy::start(&config(&[&a, &b], "bind = \"127.0.0.1:0\""));
    let command = format!("{} top --url http://{}", env!("CARGO_BIN_EXE_acequia"), proxy.admin());
    let tmux = Tmux::start(80, 24, &[], &command);
    tmux.wait_for("servers 2 of 2 up");
    tmux.press(&["d", "y"]);
    tmux.wait_for("not done: ");
    assert!(
        tcp(&proxy, "GET", "/api/v1/servers/shop/big", &[], "")
            .1
            .contains("\"use\":\"enabled\"")
    );
}

#[test]
fn while_all_streams_are_taken_top_polls() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let streams: Vec<_> = (0..32)
        .map(|_| {
            let socket = UnixStream::connect(proxy.directory().join("acequia/admin.sock")).unwrap();
            event_stream(socket).expect("a free stream")
        })
        .collect();
    let tmux = top(&proxy, 80, 24, &[]);
    let screen = tmux.wait_for("polling");
    // Without a stream there are no rates.
    assert!(
        screen.contains("new –") && screen.contains("servers 2 of 2 up"),
        "{screen}"
    );
    tmux.press(&["d", "y"]);
    tmux.wait_for("↓ draining");
    drop(streams);
    let screen = tmux.wait_for("/s   down "); // the rates are back
    assert!(!screen.contains("polling"), "{screen}");
}

#[test]
fn top_leaves_the_terminal_when_stopped_and_takes_it_when_continued() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    let pid = tmux.child();
    for _ in 0..2 {
        kill_process(pid, Signal::TSTP).unwrap();
        eventually("it is stopped", || state_of(pid) == Some('T'));
        eventually("the screen from before is back", || !tmux.screen().contains("SERVER "));
        assert!(!tmux.hides_cursor());
        kill_process(pid, Signal::CONT).unwrap();
        tmux.wait_for("SERVER ");
        eventually("there is no cursor", || tmux.hides_cursor());
    }
    tmux.press(&["d", "y"]);
    tmux.wait_for("is draining");
    tmux.press(&["q"]);
    assert_restored(&tmux, 0);
}

#[test]
fn after_sigstop_top_draws_over_what_others_wrote() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[]);
    let pid = tmux.child();
    kill_process(pid, Signal::STOP).unwrap();
    eventually("it is stopped", || state_of(pid) == Some('T'));
    tmux.write("\x1b[20;1Hwritten by another program");
    tmux.wait_for("written by another program");
    kill_process(pid, Signal::CONT).unwrap();
    eventually("it is drawn over", || {
        !tmux.screen().contains("written by another program")
    });
    tmux.wait_for("SERVER ");
    tmux.press(&["q"]);
    assert_restored(&tmux, 0);
}

#[test]
fn on_a_terminal_without_utf_8_top_writes_ascii() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let tmux = top(&proxy, 80, 24, &[("LC_ALL", "C")]);
    let screen = tmux.wait_for("+ up");
    assert!(screen.contains("SESSIONSv") && screen.is_ascii(), "{screen}");
}

#[test]
fn top_reports_that_it_has_no_terminal_or_finds_no_running_acequia() {
    let (a, b) = (Server::echo(), Server::echo());
    let proxy = start(&[&a, &b], "");
    let finished = proxy.command(&["top"]);
    assert_eq!(finished.code, Some(2), "{finished:#?}");
    assert!(finished.stderr.contains("needs a terminal"), "{finished:#?}");
    let command = format!("{} top --socket /nonexistent/admin.sock", env!("CARGO_BIN_EXE_acequia"));
    let tmux = Tmux::start(80, 24, &[], &command);
    let screen = tmux.wait_for("exit code 3");
    assert!(screen.contains("no running acequia was found"), "{screen}");
}
