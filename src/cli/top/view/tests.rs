use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::*;

fn server(name: &str, sessions: u32) -> Value {
    json!({
        "name": name, "address": "127.0.0.1:9", "priority": 0, "weight": 1, "up": true, "health": "up", "reason": null,
        "since": "2026-11-24T02:16:06.530Z", "ejected": false, "use": "enabled", "close_over": null,
        "weight_is_set": false, "set_by": null, "set_at": null, "sessions": sessions, "sessions_so_far": sessions
    })
}

/// A view of a pool with these servers.
pub(in crate::cli::top) fn view_of(servers: &[(&str, u32)]) -> View {
    let servers: Vec<_> = servers.iter().map(|(name, sessions)| server(name, *sessions)).collect();
    let state = json!({
        "version": "0.1.0", "pid": 1, "configuration": null, "started": "2026-11-24T02:16:06.512Z", "uptime": 90,
        "draining": false, "last_reload": null,
        "totals": { "sessions": 3, "sessions_so_far": 3, "servers": servers.len(), "servers_up": servers.len(), "servers_usable": servers.len() },
        "listeners": [],
        "pools": [{ "name": "shop", "balance": "least-conn", "best_tier": 0, "panic": false, "servers": servers }]
    });
    let mut view = View::default();
    view.take_state(serde_json::from_value(state).unwrap());
    view
}

fn session(id: u64, client: &str) -> Value {
    json!({
        "id": id, "listener": "https", "peer": client, "client": client, "sni": null, "alpn": null, "route": null,
        "pool": "shop", "server": "a", "age_ms": 1, "idle_ms": 1, "bytes_up": 1, "bytes_down": 1, "rate_up": 1,
        "rate_down": 1, "client_rtt_us": null, "server_rtt_us": null
    })
}

pub(in crate::cli::top) fn press(view: &mut View, code: KeyCode) -> Option<Action> {
    view.press(KeyEvent::new(code, KeyModifiers::NONE))
}

/// Selects the first row, as drawing does.
fn select(view: &mut View) {
    let mut servers = view.servers.clone();
    let mut rows = view.server_rows();
    let id = |row: &ServerRow<'_>| (row.pool.to_owned(), row.server.name.clone());
    servers.arrange(&mut rows, &server_columns(), id, 10);
    view.servers = servers;
}

/// The action in words. A change is described by its request to the process: method, path and body.
fn describe(action: Option<Action>) -> String {
    match action {
        Some(Action::Change { request, .. }) => format!("{request:?}"),
        Some(Action::ReadSessions) => "read the sessions".to_owned(),
        Some(Action::Quit) => "quit".to_owned(),
        Some(Action::Stop) => "stop".to_owned(),
        None => String::new(),
    }
}

#[test]
fn a_server_is_drained_only_after_a_confirmed_question() {
    let mut view = view_of(&[("a", 2), ("b", 1)]);
    select(&mut view);
    for no in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Enter, KeyCode::Char('q')] {
        assert!(press(&mut view, KeyCode::Char('d')).is_none());
        let question = view.question.as_ref().unwrap();
        assert_eq!(question.title, "Drain shop/a?");
        assert!(question.text.contains("keeps its 2 open sessions"), "{}", question.text);
        assert!(press(&mut view, no).is_none() && view.question.is_none());
    }
    press(&mut view, KeyCode::Char('d'));
    let request = describe(press(&mut view, KeyCode::Char('y')));
    assert!(
        request.contains("/api/v1/servers/shop/a") && request.contains("draining"),
        "{request}"
    );
    assert!(!request.contains("close_over"), "{request}");
    press(&mut view, KeyCode::Char('d'));
    let request = describe(press(&mut view, KeyCode::Char('c')));
    assert!(request.contains("close_over") && request.contains("10s"), "{request}");
}

#[test]
fn a_question_keeps_its_server_when_the_selection_moves() {
    let mut view = view_of(&[("a", 2), ("b", 1)]);
    select(&mut view);
    press(&mut view, KeyCode::Char('e'));
    view.take_state(view_of(&[("a", 2), ("b", 9)]).state.unwrap());
    select(&mut view);
    let request = describe(press(&mut view, KeyCode::Char('y')));
    assert!(request.contains("/servers/shop/a"), "{request}");
}

#[test]
fn filter_words_are_matched_here_and_conditions_by_the_process() {
    let mut view = view_of(&[("a", 2), ("b", 1)]);
    press(&mut view, KeyCode::Char('/'));
    for c in "SHOP/b".chars() {
        press(&mut view, KeyCode::Char(c));
    }
    let names: Vec<_> = view.server_rows().iter().map(ServerRow::label).collect();
    assert_eq!(names, ["shop/b"]);
    press(&mut view, KeyCode::Enter);
    assert!(!view.is_typing && view.filter() == "SHOP/b");
    press(&mut view, KeyCode::Esc);
    assert_eq!(view.server_rows().len(), 2);

    select(&mut view);
    view.take_sessions(Err("no response".to_owned()));
    assert_eq!(describe(press(&mut view, KeyCode::Enter)), "read the sessions");
    assert!(view.sessions_read.is_none(), "what was read is not about this server");
    assert_eq!(view.filter(), "pool=shop server=a");
    assert_eq!(
        view.sessions_path(),
        "/api/v1/sessions?limit=1000&sort=rate&pool=shop&server=a"
    );
    let sessions =
        json!({ "total": 2, "sessions": [session(1, "192.0.2.1:1"), session(2, "192.0.2.2:2")], "next": null });
    view.take_sessions(Ok(serde_json::from_value(sessions).unwrap()));
    assert_eq!(view.session_rows().len(), 2);
    press(&mut view, KeyCode::Char('/'));
    for c in " .2:".chars() {
        press(&mut view, KeyCode::Char(c));
    }
    assert_eq!(view.session_rows().len(), 1);
    assert_eq!(
        view.sessions_path(),
        "/api/v1/sessions?limit=1000&sort=rate",
        "conditions are not sent while the filter is typed"
    );
}

#[test]
fn new_sessions_of_a_server_are_shown_per_second() {
    let mut view = view_of(&[("a", 0)]);
    assert_eq!(view.server_rows()[0].rate.to_bits(), 0);
    view.server_rates.counted_at = Instant::now().checked_sub(std::time::Duration::from_secs(2));
    view.take_state(view_of(&[("a", 10)]).state.unwrap());
    let rate = view.server_rows()[0].rate;
    assert!((4.0..=5.0).contains(&rate), "{rate}");
}

#[test]
fn control_c_quits_from_a_question_the_filter_and_the_help() {
    let mut view = view_of(&[("a", 0)]);
    select(&mut view);
    let is_asking: fn(&View) -> bool = |view| view.question.is_some();
    let is_typing: fn(&View) -> bool = |view| view.is_typing;
    let shows_help: fn(&View) -> bool = |view| view.shows_help;
    for (before, is_open) in [('d', is_asking), ('/', is_typing), ('?', shows_help)] {
        press(&mut view, KeyCode::Char(before));
        assert!(is_open(&view), "{before}");
        let quit = view.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert_eq!(describe(quit), "quit");
        press(&mut view, KeyCode::Esc);
    }
}

#[test]
fn servers_sorted_by_their_state_begin_with_the_most_urgent() {
    let mut view = view_of(&[("a", 2), ("b", 1), ("c", 0), ("d", 0)]);
    let servers = &mut view.state.as_mut().unwrap().pools[0].servers;
    servers[1].health = "down".to_owned();
    (servers[2].usage, servers[2].set_at) = ("draining".to_owned(), None);
    servers[3].ejected = true;
    let columns = server_columns();
    let state = columns.iter().position(|column| column.title == "STATE").unwrap();
    let mut list = List::sorted_by(state);
    list.is_descending = false; // the default of a column of text
    let mut rows = view.server_rows();
    let id = |row: &ServerRow<'_>| (row.pool.to_owned(), row.server.name.clone());
    list.arrange(&mut rows, &columns, id, 10);
    let names: Vec<_> = rows.iter().map(|row| &*row.server.name).collect();
    assert_eq!(names, ["d", "b", "c", "a"]);
    let has_known_age: Vec<_> = rows.iter().map(|row| row.state_since().is_some()).collect();
    assert_eq!(
        has_known_age,
        [false, true, false, true],
        "an ejection has no known age, nor has draining without `set_at`"
    );
}
