//! Draws the view. Text from elsewhere is escaped, so that it cannot control the terminal.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Padding, Paragraph, Widget, Wrap};

use super::KEYS;
use super::ascii::to_ascii;
use super::header::{process_line, rates_line, tabs_line, worst_notice};
use super::palette::{BOLD, DIM, Palette, REVERSED};
use super::question::Question;
use super::rows::{ServerRow, Urgency, server_columns, session_columns};
use super::table::draw_list;
use super::view::{Tab, View};
use crate::admin::session_bodies::SessionBody;
use crate::cli::sessions::server_of;
use crate::cli::status::age_text;
use crate::cli::table::duration;
use crate::text::escape;

/// The smallest height of a terminal, in lines, at which all lines above and below the table are shown.
const HEIGHT_OF_ALL: u16 = 9;

/// The maximum width of questions and of the help, in cells of the terminal.
const BOX_WIDTH: u16 = 64;

/// The number of lines from which a text counts as too long for any screen.
const BOX_LINES_MAX: u16 = 300;

pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View, palette: &Palette) {
    draw_all(frame, view, palette);
    if palette.is_ascii {
        to_ascii(frame.buffer_mut());
    }
}

fn draw_all(frame: &mut Frame<'_>, view: &mut View, palette: &Palette) {
    // On a low terminal, the lines with this height are left out, so that the table has room.
    let minor_height = u16::from(frame.area().height >= HEIGHT_OF_ALL);
    let [process, rates, notice, tabs, table, detail, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(minor_height),
        Constraint::Length(minor_height),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(minor_height),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let Some(state) = &view.state else {
        frame.render_widget("waiting for the process", process);
        return;
    };
    frame.render_widget(process_line(view, state, palette), process);
    frame.render_widget(rates_line(view, state), rates);
    if let Some((urgency, text)) = worst_notice(state) {
        frame.render_widget(Line::styled(safe(&text), palette.style(urgency).patch(BOLD)), notice);
    }
    let detail_text = match view.tab {
        Tab::Servers => draw_servers(frame, table, view, palette),
        Tab::Sessions => draw_sessions(frame, table, view, palette),
    };
    frame.render_widget(tabs_line(view), tabs);
    frame.render_widget(Line::styled(safe(&detail_text), DIM), detail);
    if view.shows_help && !draw_box(frame, "Keys", KEYS.into()) {
        view.shows_help = false;
        view.answer = Some(Err(
            "the terminal is too small for the keys: see `acequia top --help`".to_owned()
        ));
    }
    if let Some(question) = &view.question
        && !draw_box(frame, "Question", question_text(question))
    {
        view.question = None;
        view.answer = Some(Err("not done: the terminal is too small for the question".to_owned()));
    }
    frame.render_widget(last_line(view, palette), keys);
}

fn question_text(question: &Question) -> Text<'static> {
    let mut text = Text::from(Line::styled(safe(&question.title), BOLD));
    text.push_line(safe(&question.text));
    text.push_line("");
    for choice in &question.choices {
        text.push_line(key_line(&choice.key.to_string(), choice.meaning));
    }
    text.push_line(key_line("n", "no"));
    text
}

fn key_line(key: &str, meaning: &str) -> Line<'static> {
    Line::from(vec![
        Span::styled(format!(" {key} "), REVERSED),
        format!(" {meaning}").into(),
    ])
}

fn draw_servers(frame: &mut Frame<'_>, area: Rect, view: &mut View, palette: &Palette) -> String {
    let mut list = view.servers.clone(); // a copy: `rows` borrows the view
    let mut rows = view.server_rows();
    let id = |row: &ServerRow<'_>| (row.pool.to_owned(), row.server.name.clone());
    let style = |row: &ServerRow<'_>, title: &str| match title {
        "STATE" => {
            let (_, _, urgency) = row.state();
            palette.style(urgency)
        }
        _ => Style::new(),
    };
    let (shown, selected) = draw_list(frame, area, &server_columns(), &mut list, &mut rows, id, style);
    let detail = selected.map_or_else(|| nothing("server", view.servers.filter()), server_detail);
    (view.servers, view.columns_shown) = (list, shown);
    detail
}

fn draw_sessions(frame: &mut Frame<'_>, area: Rect, view: &mut View, palette: &Palette) -> String {
    let mut list = view.sessions.clone(); // a copy: `rows` borrows the view
    let mut rows = view.session_rows();
    let id = |row: &&SessionBody| row.id;
    let style = |_: &&SessionBody, _: &str| Style::new();
    let (shown, selected) = draw_list(frame, area, &session_columns(), &mut list, &mut rows, id, style);
    let detail = match &view.sessions_read {
        None => "reading the sessions".to_owned(),
        Some(Err(error)) => error.clone(),
        Some(Ok(read)) => {
            let session = selected.map(|session| session_detail(session));
            // With `next`, this is the first page of an unsorted list: the oldest sessions. A sorted one has no `next`.
            let which = if read.next.is_some() { "oldest" } else { "first" };
            let is_part = read.sessions.len() < read.total;
            let part = is_part.then(|| format!("the {which} {} of {}", read.sessions.len(), read.total));
            let parts: Vec<_> = part.into_iter().chain(session).collect();
            if parts.is_empty() {
                nothing("session", view.sessions.filter())
            } else {
                parts.join("; ")
            }
        }
    };
    if let Some(Err(_)) = view.sessions_read {
        frame.render_widget(Clear, area);
        frame.render_widget(Line::styled(safe(&detail), palette.style(Urgency::Bad)), area);
    }
    (view.sessions, view.columns_shown) = (list, shown);
    detail
}

/// Why no row is shown.
fn nothing(noun: &str, filter: &str) -> String {
    if filter.is_empty() {
        format!("no {noun}")
    } else {
        format!("no {noun} matches the filter")
    }
}

/// The facts of the row in full length, because the row may leave some out or shorten them; and who set the state.
fn server_detail(row: &ServerRow<'_>) -> String {
    let (sign, word, _) = row.state();
    let reason = row
        .server
        .reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(": {reason}"));
    let set_by = row
        .server
        .set_by
        .as_ref()
        .map_or_else(String::new, |by| format!("; set by {by}"));
    let time = row
        .state_since()
        .map_or_else(String::new, |time| format!(", for {}", age_text(time)));
    format!(
        "{} at {}: {sign} {word}{time}{reason}{set_by}",
        row.label(),
        row.server.address,
    )
}

fn session_detail(session: &SessionBody) -> String {
    let sni = session
        .sni
        .as_ref()
        .map_or_else(String::new, |sni| format!(" asking for {sni}"));
    let user = session
        .user
        .as_ref()
        .map_or_else(String::new, |user| format!(" as user {user}"));
    let database = session
        .database
        .as_ref()
        .map_or_else(String::new, |database| format!(" of database {database}"));
    let server = server_of(session).map_or_else(String::new, |server| format!(" to {server}"));
    let age = duration(Duration::from_millis(session.age_ms));
    format!(
        "{}: {}{sni}{user}{database}, at {}{server}, for {age}",
        session.id, session.client, session.listener
    )
}

/// The `answer` of the view, or the keys.
fn last_line(view: &View, palette: &Palette) -> Line<'static> {
    match &view.answer {
        Some(Ok(done)) => return Line::styled(format!("done: {}", safe(done)), palette.style(Urgency::Good)),
        Some(Err(error)) => return Line::styled(safe(error), palette.style(Urgency::Bad)),
        None => {}
    }
    let keys: &[(&str, &str)] = match (view.is_typing, view.tab) {
        (true, _) => &[("Enter", "keep"), ("Esc", "clear")],
        (false, Tab::Servers) => &[
            ("q", "quit"),
            ("Tab", "sessions"),
            ("/", "filter"),
            ("< >", "sort"),
            ("d", "drain"),
            ("e", "enable"),
            ("?", "keys"),
        ],
        (false, Tab::Sessions) => &[
            ("q", "quit"),
            ("Tab", "servers"),
            ("/", "filter"),
            ("< >", "sort"),
            ("k", "kill"),
            ("?", "keys"),
        ],
    };
    Line::from_iter(keys.iter().flat_map(|(key, meaning)| {
        [
            Span::styled(format!(" {key} "), REVERSED),
            format!(" {meaning} ").into(),
        ]
    }))
}

/// The text without characters that control the terminal.
fn safe(text: &str) -> String {
    escape(text, &[]).into_owned()
}

/// Draws a box in the middle of the screen, over what is there, if the whole box fits. Returns whether it does.
fn draw_box(frame: &mut Frame<'_>, title: &str, text: Text<'_>) -> bool {
    let screen = frame.area();
    let width = BOX_WIDTH.min(screen.width);
    let text = Paragraph::new(text).wrap(Wrap { trim: false });
    let lines = lines_of(&text, width.saturating_sub(4));
    if !(1..BOX_LINES_MAX).contains(&lines) || lines + 2 > screen.height {
        return false;
    }
    let area = screen.centered(Constraint::Length(width), Constraint::Length(lines + 2));
    let block = Block::bordered()
        .title(Line::styled(format!(" {title} "), BOLD))
        .padding(Padding::horizontal(1));
    frame.render_widget(Clear, area);
    frame.render_widget(text.block(block), area);
    true
}

/// The number of lines that a text takes at this width, at most [`BOX_LINES_MAX`]; 0 if the width is 0.
fn lines_of(text: &Paragraph<'_>, width: u16) -> u16 {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, BOX_LINES_MAX));
    text.render(buffer.area, &mut buffer);
    let last = buffer.content.iter().rposition(|cell| cell.symbol() != " ");
    last.map_or(0, |at| buffer.pos_of(at).1 + 1)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use ratatui::style::Color;

    use super::*;
    use crate::cli::top::view::Action;
    use crate::cli::top::view::tests::{press, view_of};

    /// The text of the screen, and whether it has colors.
    fn drawn(view: &mut View, palette: &Palette, width: u16, height: u16) -> (String, bool) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, palette)).unwrap();
        let buffer = terminal.backend().buffer();
        let has_colors = buffer
            .content
            .iter()
            .any(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset);
        let text = |line: &[ratatui::buffer::Cell]| line.iter().map(|cell| cell.symbol()).collect::<String>() + "\n";
        (buffer.content.chunks(width.into()).map(text).collect(), has_colors)
    }

    #[test]
    fn without_colors_the_state_is_shown_as_text() {
        let mut view = view_of(&[("a", 2), ("b", 1)]);
        let (screen, has_colors) = drawn(&mut view, &Palette::PLAIN, 80, 24);
        assert!(!has_colors);
        for part in [
            "acequia 0.1.0, up ",
            "servers 2 of 2 up",
            "shop/a",
            "✓ up",
            "SESSIONS↓",
            " q  quit",
            "?  keys",
        ] {
            assert!(screen.contains(part), "{part}: {screen}");
        }
        assert!(drawn(&mut view, &Palette::COLORED, 80, 24).1);
    }

    #[test]
    fn small_and_large_terminals_are_drawn_without_a_panic() {
        let mut view = view_of(&[("a", 2), ("b", 1)]);
        view.shows_help = true;
        for (width, height) in [(1, 1), (3, 2), (20, 5), (80, 24), (500, 200)] {
            drawn(&mut view, &Palette::COLORED, width, height);
        }
    }

    #[test]
    fn a_small_terminal_shows_the_table_and_no_part_of_a_box() {
        let mut view = view_of(&[("a", 2), ("b", 1)]);
        let (screen, _) = drawn(&mut view, &Palette::PLAIN, 20, 5);
        assert!(screen.contains("shop/a"), "{screen}");
        press(&mut view, KeyCode::Char('?'));
        let (screen, _) = drawn(&mut view, &Palette::PLAIN, 80, 5);
        let told = "\nthe terminal is too small for the keys: see `acequia top --help`";
        assert!(screen.contains(told) && screen.contains("shop/a"), "{screen}");
        assert!(!screen.contains('│'), "{screen}");
    }

    #[test]
    fn an_empty_table_says_why() {
        let mut view = view_of(&[]);
        assert!(drawn(&mut view, &Palette::PLAIN, 80, 24).0.contains("no server "));
        view.take_sessions(serde_json::from_str(r#"{"total": 5, "sessions": []}"#).map_err(|_| String::new()));
        press(&mut view, KeyCode::Tab);
        assert!(drawn(&mut view, &Palette::PLAIN, 80, 24).0.contains("the first 0 of 5"));
        view.take_sessions(Err("no\nresponse".to_owned()));
        let (screen, _) = drawn(&mut view, &Palette::PLAIN, 80, 24);
        assert!(
            screen.contains("\nno\\nresponse ") && !screen.contains("CLIENT"),
            "{screen}"
        );
        press(&mut view, KeyCode::Tab);
        press(&mut view, KeyCode::Char('/'));
        press(&mut view, KeyCode::Char('x'));
        let (screen, _) = drawn(&mut view, &Palette::PLAIN, 80, 24);
        assert!(screen.contains("no server matches the filter"), "{screen}");
    }

    #[test]
    fn a_terminal_without_utf_8_gets_ascii() {
        let palette = Palette {
            is_ascii: true,
            ..Palette::PLAIN
        };
        let mut view = view_of(&[("ü日", 2)]);
        press(&mut view, KeyCode::Char('?'));
        let (screen, _) = drawn(&mut view, &palette, 80, 24);
        assert!(screen.is_ascii(), "{screen}");
        for part in ["shop/??", "+ up", "SESSIONSv", "| "] {
            assert!(screen.contains(part), "{part}: {screen}");
        }
    }

    #[test]
    fn a_question_that_does_not_fit_the_terminal_is_not_asked() {
        for (width, height) in [(80, 7), (80, 3), (80, 1), (4, 24), (12, 12), (80, 8), (30, 24)] {
            let fits = [(80, 8), (30, 24)].contains(&(width, height));
            let mut view = view_of(&[("a", 2)]);
            drawn(&mut view, &Palette::PLAIN, 80, 24);
            press(&mut view, KeyCode::Char('d'));
            let (screen, _) = drawn(&mut view, &Palette::PLAIN, width, height);
            assert_eq!(view.question.is_some(), fits, "{width} x {height}: {screen}");
            let acts = matches!(press(&mut view, KeyCode::Char('y')), Some(Action::Change { .. }));
            assert_eq!(acts, fits, "{width} x {height}");
            if fits {
                for part in ["Drain shop/a?", "sessions", " y  yes", " n  no"] {
                    assert!(screen.contains(part), "{part}: {screen}");
                }
            }
        }
    }

    #[test]
    fn foreign_text_cannot_control_the_terminal() {
        let mut view = view_of(&[("a\u{1b}[31m\u{202e}b", 2)]);
        view.take_answer(Err("no\u{1b}]0;x\u{7}".to_owned()));
        let (screen, _) = drawn(&mut view, &Palette::PLAIN, 120, 24);
        assert!(screen.contains(r"shop/a\u{1b}[31m\u{202e}b"), "{screen}");
        assert!(screen.contains(r"not done: no\u{1b}]0;x\u{7}"), "{screen}");
        assert!(
            !screen.chars().any(|c| c != '\n' && crate::text::is_unsafe(c)),
            "{screen:?}"
        );
    }
}
