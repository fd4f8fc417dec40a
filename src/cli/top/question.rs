//! The questions before a change.

use std::time::Duration;

use serde_json::{Value, json};

use super::rows::ServerRow;
use crate::admin::session_bodies::SessionBody;
use crate::cli::remote::ApiRequest;
use crate::cli::server::encode;
use crate::cli::sessions::server_of;
use crate::cli::table::duration;
use crate::text::counted;

/// The time over which the sessions of a server are cut.
const CLOSE_OVER: &str = "10s";

/// A question, and the choices besides "no".
pub(super) struct Question {
    pub(super) title: String,
    /// The effect of a "yes".
    pub(super) text: String,
    pub(super) choices: Vec<Choice>,
}

/// A choice, and its key.
pub(super) struct Choice {
    pub(super) key: char,
    pub(super) meaning: &'static str,
    pub(super) request: ApiRequest,
    /// The text that is shown when the request has succeeded.
    pub(super) done: String,
}

/// An action on a server.
#[derive(Clone, Copy)]
pub(super) enum ServerAct {
    Drain,
    Enable,
    Disable,
}

impl Question {
    pub(super) fn about_server(row: &ServerRow<'_>, act: ServerAct) -> Self {
        let label = row.label();
        let path = format!("/api/v1/servers/{}/{}", encode(row.pool), encode(&row.server.name));
        let choice = |key, meaning, body: Value, done: String| Choice {
            key,
            meaning,
            request: ApiRequest::post(&*path, body.to_string()),
            done,
        };
        let sessions = counted(row.server.sessions as usize, "open session");
        let (verb, state, effect) = match act {
            ServerAct::Enable => {
                let done = format!("{label} is enabled");
                return Self {
                    title: format!("Enable {label}?"),
                    text: "It gets new sessions again.".to_owned(),
                    choices: vec![choice('y', "yes", json!({ "use": "enabled" }), done)],
                };
            }
            ServerAct::Drain => ("Drain", "draining", "It gets no new sessions."),
            ServerAct::Disable => (
                "Disable",
                "disabled",
                "It gets no new sessions and is no longer checked.",
            ),
        };
        let done = format!("{label} is {state}");
        let mut choices = vec![choice('y', "yes", json!({ "use": state }), done)];
        let mut text = effect.to_owned();
        if row.server.sessions > 0 {
            text += &format!(" It keeps its {sessions}.");
            let body = json!({ "use": state, "close_over": CLOSE_OVER });
            let done = format!("{label} is {state}, and its sessions are cut over {CLOSE_OVER}");
            choices.push(choice('c', "yes, and cut its sessions over 10 s", body, done));
        }
        Self {
            title: format!("{verb} {label}?"),
            text,
            choices,
        }
    }

    pub(super) fn about_session(session: &SessionBody) -> Self {
        let id = session.id;
        let to = server_of(session).map_or_else(String::new, |server| format!(" to {server}"));
        let age = duration(Duration::from_millis(session.age_ms));
        Self {
            title: format!("End session {id}?"),
            text: format!(
                "The session of {}{to}, open for {age}, is reset on both sides.",
                session.client
            ),
            choices: vec![Choice {
                key: 'y',
                meaning: "yes",
                request: ApiRequest::delete(format!("/api/v1/sessions/{id}")),
                done: format!("session {id} is ended"),
            }],
        }
    }
}
