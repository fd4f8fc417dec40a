//! The shown state, and the effect of keys. Nothing here waits or draws.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::time::Instant;

use super::feed::Update;
use super::filter::{condition, conditions_and_words, words};
use super::list::List;
use super::question::{Question, ServerAct};
use super::rates::{Rates, ServerRates};
use super::rows::{ServerRow, server_columns, session_columns, session_matches};
use crate::admin::bodies::{PoolBody, ServerBody, StateBody};
use crate::admin::changes::ChangesBody;
use crate::admin::session_bodies::{SessionBody, SessionsBody};
use crate::cli::remote::ApiRequest;

/// How many sessions are read at once: the most that the API gives.
const SESSIONS_READ_MAX: usize = 1000;

/// Rows by which a page key moves.
const PAGE: isize = 10;

/// What a key makes [`super::Top`] do outside the view.
pub(super) enum Action {
    Quit,
    /// Stop this program until the shell continues it.
    Stop,
    ReadSessions,
    Change {
        request: ApiRequest,
        done: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tab {
    Servers,
    Sessions,
}

pub(super) struct View {
    pub(super) state: Option<StateBody>,
    /// `None`: they are not known.
    pub(super) rates: Option<Rates>,
    pub(super) is_polling: bool,
    /// When the last update from the process arrived.
    pub(super) heard_at: Instant,
    server_rates: ServerRates,
    /// The sessions that were read last, or why they could not be read.
    pub(super) sessions_read: Option<Result<SessionsBody, String>>,
    pub(super) tab: Tab,
    /// A row is identified by the names of its pool and server.
    pub(super) servers: List<(String, String)>,
    /// A row is identified by the ID of its session.
    pub(super) sessions: List<u64>,
    /// The columns that the last drawing had room for.
    pub(super) columns_shown: Vec<usize>,
    /// Whether keys are characters of the filter.
    pub(super) is_typing: bool,
    pub(super) shows_help: bool,
    pub(super) question: Option<Question>,
    /// The answer to the last [`Action::Change`]. `Err`: why it was not done, or that the help or a question has
    /// no room.
    pub(super) answer: Option<Result<String, String>>,
}

impl Default for View {
    fn default() -> Self {
        let servers_sort = server_columns().iter().position(|column| column.title == "SESSIONS");
        let sessions_sort = session_columns().iter().position(|column| column.title == "RATE");
        Self {
            state: None,
            rates: None,
            is_polling: false,
            heard_at: Instant::now(),
            server_rates: ServerRates::default(),
            sessions_read: None,
            tab: Tab::Servers,
            servers: List::sorted_by(servers_sort.expect("there is such a column")),
            sessions: List::sorted_by(sessions_sort.expect("there is such a column")),
            columns_shown: Vec::new(),
            is_typing: false,
            shows_help: false,
            question: None,
            answer: None,
        }
    }
}

impl View {
    pub(super) fn take(&mut self, update: Update) {
        self.heard_at = Instant::now();
        self.is_polling = matches!(update, Update::Polled(_));
        match update {
            Update::State(state) => self.take_state(*state),
            Update::Changes(changes) => self.take_changes(*changes),
            Update::Sample(sample) => self.rates = Some(sample.rates()),
            Update::Polled(state) => {
                self.take_state(*state);
                self.rates = None;
            }
        }
    }

    pub(super) fn take_state(&mut self, state: StateBody) {
        self.server_rates.update(&state);
        self.state = Some(state);
    }

    pub(super) fn take_changes(&mut self, changes: ChangesBody) {
        if let Some(state) = &mut self.state {
            changes.apply(state);
            self.server_rates.update(state);
        }
    }

    pub(super) fn take_sessions(&mut self, read: Result<SessionsBody, String>) {
        self.sessions_read = Some(read);
    }

    pub(super) fn take_answer(&mut self, answer: Result<String, String>) {
        self.answer = Some(answer.map_err(|error| format!("not done: {error}")));
    }

    pub(super) fn shows_sessions(&self) -> bool {
        self.tab == Tab::Sessions
    }

    /// The servers that match the filter.
    pub(super) fn server_rows(&self) -> Vec<ServerRow<'_>> {
        let pools = self.state.iter().flat_map(|state| &state.pools);
        let rows = pools.flat_map(|pool| pool.servers.iter().map(|server| self.server_row(pool, server)));
        let words = words(self.servers.filter());
        rows.filter(|row| row.matches(&words)).collect()
    }

    fn server_row<'a>(&self, pool: &'a PoolBody, server: &'a ServerBody) -> ServerRow<'a> {
        ServerRow {
            pool: &pool.name,
            server,
            origin: pool.origin_of(server),
            rate: self.server_rates.get(&pool.name, &server.name),
        }
    }

    /// The sessions that were read and match the filter.
    pub(super) fn session_rows(&self) -> Vec<&SessionBody> {
        let read = self.sessions_read.as_ref().and_then(|read| read.as_ref().ok());
        let (_, words) = conditions_and_words(self.sessions.filter());
        let matching = read.into_iter().flat_map(|read| &read.sessions);
        matching.filter(|session| session_matches(session, &words)).collect()
    }

    /// The path of the API request for the sessions that match the conditions in the filter.
    pub(super) fn sessions_path(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &SESSIONS_READ_MAX.to_string());
        // If more than `SESSIONS_READ_MAX` sessions match, the order decides which of them are read. The API can only
        // put the highest first.
        let order = session_order(session_columns()[self.sessions.sort].title);
        if let Some(order) = order
            && self.sessions.is_descending
        {
            query.append_pair("sort", order);
        }
        // A filter that is still being typed is not a condition yet.
        if !self.is_typing {
            query.extend_pairs(conditions_and_words(self.sessions.filter()).0);
        }
        format!("/api/v1/sessions?{}", query.finish())
    }

    pub(super) fn filter(&self) -> &str {
        match self.tab {
            Tab::Servers => self.servers.filter(),
            Tab::Sessions => self.sessions.filter(),
        }
    }

    /// Applies a key. Returns what is to be done outside the view.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('z') {
            return Some(Action::Stop);
        }
        self.answer = None;
        if let Some(question) = self.question.take() {
            let choice = question
                .choices
                .into_iter()
                .find(|choice| key.code == KeyCode::Char(choice.key));
            return choice.map(|choice| Action::Change {
                request: choice.request,
                done: choice.done,
            });
        }
        if std::mem::take(&mut self.shows_help) {
            return None;
        }
        if self.is_typing {
            return self.apply_typing_key(key);
        }
        self.apply_command_key(key.code)
    }

    fn apply_command_key(&mut self, code: KeyCode) -> Option<Action> {
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Tab | KeyCode::BackTab => {
                self.tab = match self.tab {
                    Tab::Servers => Tab::Sessions,
                    Tab::Sessions => Tab::Servers,
                };
            }
            KeyCode::Up => self.move_by(-1),
            KeyCode::Down => self.move_by(1),
            KeyCode::PageUp => self.move_by(-PAGE),
            KeyCode::PageDown => self.move_by(PAGE),
            KeyCode::Home => self.move_by(isize::MIN),
            KeyCode::End => self.move_by(isize::MAX),
            KeyCode::Char('<') => self.sort_by_neighbour(false),
            KeyCode::Char('>') => self.sort_by_neighbour(true),
            KeyCode::Char('r') => match self.tab {
                Tab::Servers => self.servers.reverse(),
                Tab::Sessions => self.sessions.reverse(),
            },
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Esc => return self.set_filter(String::new()),
            KeyCode::Char('?' | 'h') => self.shows_help = true,
            KeyCode::Char('d') => self.ask_about_server(ServerAct::Drain),
            KeyCode::Char('e') => self.ask_about_server(ServerAct::Enable),
            KeyCode::Char('x') => self.ask_about_server(ServerAct::Disable),
            KeyCode::Char('k') => self.ask_about_session(),
            KeyCode::Enter => return self.show_sessions_of_server(),
            _ => {}
        }
        None
    }

    fn apply_typing_key(&mut self, key: KeyEvent) -> Option<Action> {
        match (self.tab, key.code) {
            (_, KeyCode::Enter) => {
                self.is_typing = false;
                return self.shows_sessions().then_some(Action::ReadSessions);
            }
            (_, KeyCode::Esc) => {
                self.is_typing = false;
                return self.set_filter(String::new());
            }
            (_, KeyCode::Up) => self.move_by(-1),
            (_, KeyCode::Down) => self.move_by(1),
            (Tab::Servers, KeyCode::Backspace) => self.servers.erase_char(),
            (Tab::Sessions, KeyCode::Backspace) => self.sessions.erase_char(),
            _ if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {}
            (Tab::Servers, KeyCode::Char(c)) => self.servers.type_char(c),
            (Tab::Sessions, KeyCode::Char(c)) => self.sessions.type_char(c),
            _ => {}
        }
        None
    }

    fn set_filter(&mut self, filter: String) -> Option<Action> {
        match self.tab {
            Tab::Servers => self.servers.set_filter(filter),
            Tab::Sessions => {
                self.sessions.set_filter(filter);
                self.sessions_read = None; // these sessions may have been read for another filter
            }
        }
        self.shows_sessions().then_some(Action::ReadSessions)
    }

    fn move_by(&mut self, rows: isize) {
        match self.tab {
            Tab::Servers => self.servers.move_by(rows),
            Tab::Sessions => self.sessions.move_by(rows),
        }
    }

    fn sort_by_neighbour(&mut self, forward: bool) {
        let shown = &self.columns_shown;
        match self.tab {
            Tab::Servers => self.servers.sort_by_neighbour(&server_columns(), shown, forward),
            Tab::Sessions => self.sessions.sort_by_neighbour(&session_columns(), shown, forward),
        }
    }

    /// The server that is selected in the table of servers.
    pub(super) fn selected_server(&self) -> Option<ServerRow<'_>> {
        let (pool, name) = self.servers.selected()?;
        let pool = self.state.as_ref()?.pools.iter().find(|one| one.name == *pool)?;
        let server = pool.servers.iter().find(|one| one.name == *name)?;
        Some(self.server_row(pool, server))
    }

    /// The session that is selected in the table of sessions.
    pub(super) fn selected_session(&self) -> Option<&SessionBody> {
        let id = self.sessions.selected()?;
        let read = self.sessions_read.as_ref()?.as_ref().ok()?;
        read.sessions.iter().find(|session| session.id == *id)
    }

    fn ask_about_server(&mut self, act: ServerAct) {
        if self.tab == Tab::Servers {
            self.question = self.selected_server().map(|row| Question::about_server(&row, act));
        }
    }

    fn ask_about_session(&mut self) {
        if self.shows_sessions() {
            self.question = self.selected_session().map(Question::about_session);
        }
    }

    fn show_sessions_of_server(&mut self) -> Option<Action> {
        if self.tab != Tab::Servers {
            return None;
        }
        let (pool, server) = self.servers.selected()?;
        let filter = format!("{} {}", condition("pool", pool), condition("server", server));
        self.tab = Tab::Sessions;
        self.set_filter(filter)
    }
}

/// The sort key of the API that comes closest to this column: `bytes` counts both directions together, and `rtt` is the
/// longer time of the two ends. `None`: there is none.
fn session_order(title: &str) -> Option<&'static str> {
    match title {
        "IDLE" => Some("idle"),
        "UP" | "DOWN" => Some("bytes"),
        "RATE" => Some("rate"),
        "RTT" => Some("rtt"),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
