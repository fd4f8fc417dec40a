//! `acequia sessions`: who is there, and how to end one.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::remote::{Question, Remote};
use super::table::{duration, or_dash, size, table};
use crate::admin::bodies::{KilledBody, SessionBody, SessionsBody};

/// Which sessions, and what becomes of them.
#[derive(Debug, Args)]
pub struct Asked {
    /// Ends this one, by a reset of both sides
    #[arg(long, value_name = "ID", conflicts_with_all = ["filters", "limit", "after"])]
    kill: Option<u64>,
    /// Only those with id, listener, route, pool, server, sni, peer or client equal to this, or with at least this much
    /// of min_age, min_idle, min_rtt, min_bytes, min_rate; may be given more than once
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = pair)]
    filters: Vec<(String, String)>,
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// Only those behind this one
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Asked {
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.filters);
        if let Some(limit) = self.limit {
            query.append_pair("limit", &limit.to_string());
        }
        if let Some(after) = self.after {
            query.append_pair("after", &after.to_string());
        }
        query.finish()
    }
}

/// Shows sessions, or ends one.
#[must_use]
pub fn run(remote: &Remote, asked: &Asked) -> ExitCode {
    if let Some(id) = asked.kill {
        let question = Question::delete(format!("/api/v1/sessions/{id}"));
        return remote.ask(question, |KilledBody { killed }| {
            Ok(format!("session {killed} is killed\n"))
        });
    }
    remote.ask(
        Question::get(format!("/api/v1/sessions?{}", asked.query())),
        |sessions| Ok(shown(&sessions)),
    )
}

fn shown(sessions: &SessionsBody) -> String {
    let head = [
        "ID", "LISTENER", "CLIENT", "SNI", "SERVER", "AGE", "IDLE", "UP", "DOWN", "RATES", "RTTS",
    ];
    let rows: Vec<_> = sessions.sessions.iter().map(row).collect();
    let shown = sessions.sessions.len();
    let more = sessions.next.map(|next| format!("; go on with --after {next}"));
    format!(
        "{}{shown} of {}{}\n",
        table(head, &rows, &["RTTS", "LISTENER", "SNI", "RATES", "IDLE"]),
        sessions.total,
        more.unwrap_or_default()
    )
}

fn row(session: &SessionBody) -> [String; 11] {
    let ms = |ms| duration(Duration::from_millis(ms));
    let rtt = |us: u32| format!("{:.1}", f64::from(us) / 1000.0);
    let rtts = session.client_rtt_us.zip(session.server_rtt_us);
    let server = match (&session.pool, &session.server) {
        (Some(pool), Some(server)) => Some(format!("{pool}/{server}")),
        (pool, _) => pool.clone(),
    };
    [
        session.id.to_string(),
        session.listener.clone(),
        session.client.clone(),
        or_dash(session.sni.clone()),
        or_dash(server),
        ms(session.age_ms),
        ms(session.idle_ms),
        size(session.bytes_up),
        size(session.bytes_down),
        format!("{}/s {}/s", size(session.rate_up), size(session.rate_down)),
        or_dash(rtts.map(|(client, server)| format!("{} {}ms", rtt(client), rtt(server)))),
    ]
}
