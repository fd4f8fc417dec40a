//! Rows and columns of the two tables: servers and sessions.

use std::borrow::Cow;
use std::time::Duration;

use super::columns::{CellValue, Column};
use super::filter::contains_all;
use crate::admin::bodies::ServerBody;
use crate::admin::session_bodies::SessionBody;
use crate::cli::sessions::server_of;
use crate::cli::status::age;

/// A server with its pool.
pub(super) struct ServerRow<'a> {
    pub(super) pool: &'a str,
    pub(super) server: &'a ServerBody,
    /// The result of [`PoolBody::origin_of`](crate::admin::bodies::PoolBody::origin_of): where the server comes from;
    /// `None`: from the configuration.
    pub(super) origin: Option<&'static str>,
    /// New sessions per second.
    pub(super) rate: f64,
}

/// How urgently somebody should look at a server or a notice. The most urgent is first, as the column STATE sorts them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Urgency {
    Bad,
    Warning,
    /// Not in use, but without a fault; or in a state that is not known.
    Neutral,
    Good,
}

impl ServerRow<'_> {
    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.pool, self.server.name)
    }

    /// Its state as a sign and a word, and its urgency. The words are those of the admin page.
    pub(super) fn state(&self) -> (&'static str, &str, Urgency) {
        state_of(self.server)
    }

    /// Since when it has been in this state, where that is known.
    pub(super) fn state_since(&self) -> Option<&str> {
        let (_, word, _) = self.state();
        match word {
            "disabled" | "draining" => self.server.set_at.as_deref(),
            "awaiting failback" | "ejected" | "full" => None,
            _ => Some(&self.server.since),
        }
    }

    pub(super) fn matches(&self, words: &[String]) -> bool {
        let (_, state, _) = self.state();
        let text = format!("{} {} {state}", self.label(), self.server.address);
        contains_all(&text, words)
    }
}

/// The state of a server as a sign and a word, and its urgency.
pub(super) fn state_of(server: &ServerBody) -> (&'static str, &str, Urgency) {
    let is_full = server.max_sessions.is_some_and(|max| server.sessions >= max);
    match (&*server.usage, &*server.health) {
        ("disabled", _) => ("–", "disabled", Urgency::Neutral),
        ("draining", _) => ("↓", "draining", Urgency::Warning),
        ("awaiting failback", _) => ("‖", "awaiting failback", Urgency::Warning),
        _ if server.ejected => ("^", "ejected", Urgency::Bad),
        (_, "down") => ("✕", "down", Urgency::Bad),
        (_, "wrong role") => ("≠", "wrong role", Urgency::Neutral),
        (_, "check refused") => ("!", "check refused", Urgency::Warning),
        _ if is_full => ("■", "full", Urgency::Warning),
        (_, "up") => ("✓", "up", Urgency::Good),
        (_, other) => ("?", other, Urgency::Neutral),
    }
}

/// The columns of servers. A text column has its width and its growth as a tuple, a number column only its width. The
/// number after that is the rank: on a narrow screen, columns with the lowest ranks are left out.
pub(super) fn server_columns<'a>() -> [Column<ServerRow<'a>>; 11] {
    [
        Column::text("SERVER", (22, 2), 10, |row| CellValue::Text(row.label().into())),
        Column::text("ADDRESS", (21, 1), 2, |row| text(&row.server.address)),
        Column::text("ORIGIN", (10, 0), 1, |row| text(row.origin.unwrap_or("configured"))),
        Column::text("STATE", (15, 0), 9, |row| state_cell(row)),
        Column::number("FOR", 7, 6, |row| CellValue::Duration(row.state_since().map(age))),
        Column::number("SESSIONS", 9, 8, |row| {
            CellValue::CountAndMax(row.server.sessions, row.server.max_sessions)
        }),
        Column::number("NEW/S", 7, 7, |row| CellValue::Rate(row.rate)),
        Column::number("SO FAR", 12, 4, |row| CellValue::Count(row.server.sessions_so_far)),
        Column::number("WEIGHT", 7, 5, |row| CellValue::Count(row.server.weight.into())),
        Column::number("TIER", 5, 3, |row| CellValue::Count(row.server.priority.into())),
        Column::text("LAST CHECK", (16, 4), 0, |row| {
            text(row.server.reason.as_deref().unwrap_or_default())
        }),
    ]
}

fn state_cell(row: &ServerRow<'_>) -> CellValue<'static> {
    let (sign, word, urgency) = row.state();
    CellValue::Ranked(urgency as u8, format!("{sign} {word}"))
}

pub(super) fn session_matches(session: &SessionBody, words: &[String]) -> bool {
    let optional = [
        &session.sni,
        &session.route,
        &session.pool,
        &session.server,
        &session.database,
        &session.user,
    ];
    let optional: Vec<_> = optional.into_iter().flatten().map(String::as_str).collect();
    let text = format!(
        "{} {} {} {}",
        session.id,
        session.client,
        session.listener,
        optional.join(" ")
    );
    contains_all(&text, words)
}

/// The columns of sessions, written as in [`server_columns`].
pub(super) fn session_columns<'a>() -> [Column<&'a SessionBody>; 11] {
    [
        Column::number("ID", 9, 2, |row| CellValue::Count(row.id)),
        Column::text("CLIENT", (21, 1), 10, |row| text(&row.client)),
        Column::text("SNI", (16, 2), 1, |row| text(row.sni.as_deref().unwrap_or("-"))),
        Column::text("LISTENER", (10, 1), 0, |row| text(&row.listener)),
        Column::text("SERVER", (15, 1), 9, |row| {
            CellValue::Text(server_of(row).unwrap_or_default().into())
        }),
        Column::number("AGE", 7, 5, |row| milliseconds(row.age_ms)),
        Column::number("IDLE", 7, 4, |row| milliseconds(row.idle_ms)),
        Column::number("UP", 8, 6, |row| CellValue::Bytes(row.bytes_up)),
        Column::number("DOWN", 8, 7, |row| CellValue::Bytes(row.bytes_down)),
        Column::number("RATE", 11, 8, |row| {
            CellValue::ByteRate(row.rate_up.saturating_add(row.rate_down))
        }),
        Column::number("RTT", 8, 3, |row| CellValue::RoundTrip(row.client_rtt_us)),
    ]
}

fn milliseconds(ms: u64) -> CellValue<'static> {
    CellValue::Duration(Some(Duration::from_millis(ms)))
}

fn text(text: &str) -> CellValue<'_> {
    CellValue::Text(Cow::Borrowed(text))
}
