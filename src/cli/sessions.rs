//! `acequia sessions`: lists the open sessions, or ends one.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use clap::Args;

use super::remote::{ApiRequest, Remote};
use super::table::{duration, or_dash, size, table};
use super::terminal::reject_arguments;
use crate::admin::session_bodies::{KilledBody, SessionBody, SessionsBody};
use crate::admin::sessions::SessionQuery;

/// The arguments of `acequia sessions`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// End this session with a reset to both sides
    #[arg(long, value_name = "ID", conflicts_with_all = ["filters", "sort", "limit", "after"])]
    kill: Option<u64>,
    /// List only sessions whose id, listener, route, pool, server, sni, database, user, peer or client equals VALUE, or
    /// that have at least VALUE for min_age, min_idle, min_rtt, min_bytes or min_rate; may be repeated: a session must
    /// match all filters
    #[arg(long = "filter", value_name = "KEY=VALUE", value_parser = parse_filter)]
    filters: Vec<(String, String)>,
    /// Sort by bytes, rate, idle or rtt, the largest first [default: the oldest first]
    #[arg(long, value_name = "KEY", conflicts_with = "after")]
    sort: Option<String>,
    /// List at most this many sessions [default: 100]
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,
    /// List only sessions whose id is greater than ID, for the next page
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
}

fn parse_filter(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl SessionsArgs {
    /// The query of the request.
    ///
    /// # Errors
    /// The API would reject it.
    fn query(&self) -> Result<String, String> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.filters);
        if let Some(key) = &self.sort {
            query.append_pair("sort", key);
        }
        if let Some(limit) = self.limit {
            query.append_pair("limit", &limit.to_string());
        }
        if let Some(after) = self.after {
            query.append_pair("after", &after.to_string());
        }
        let query = query.finish();
        let uri = format!("/?{query}").parse();
        let uri = uri.map_err(|_| String::from("the filters are too long"))?;
        let checked = Query::<SessionQuery>::try_from_uri(&uri);
        // The source of the rejection says what is wrong, without a word about query strings.
        let why = |rejection: QueryRejection| match rejection.source() {
            Some(source) => source.to_string(),
            None => rejection.body_text(),
        };
        let Query(checked) = checked.map_err(why)?;
        checked.parse().map(|_| query)
    }
}

/// Prints the sessions, or ends one.
#[must_use]
pub fn run(remote: &Remote, args: &SessionsArgs) -> ExitCode {
    if let Some(id) = args.kill {
        let request = ApiRequest::delete(format!("/api/v1/sessions/{id}"));
        return remote.request(request, |KilledBody { killed }| {
            Ok(format!("session {killed} is killed\n"))
        });
    }
    let query = match args.query() {
        Ok(query) => query,
        Err(why) => return reject_arguments(&why),
    };
    let request = ApiRequest::get(format!("/api/v1/sessions?{query}"));
    remote.request(request, |sessions| Ok(session_table(&sessions)))
}

fn session_table(sessions: &SessionsBody) -> String {
    let header = [
        "ID", "LISTENER", "CLIENT", "SNI", "DATABASE", "USER", "SERVER", "AGE", "IDLE", "UP", "DOWN", "RATES", "RTTS",
    ];
    let rows: Vec<_> = sessions.sessions.iter().map(row).collect();
    let count = sessions.sessions.len();
    let more = sessions.next.map(|next| format!("; continue with --after {next}"));
    // In the order in which a narrow terminal leaves them out.
    let optional = ["RTTS", "LISTENER", "SNI", "RATES", "IDLE", "USER", "DATABASE"];
    format!(
        "{}{count} of {}{}\n",
        table(header, &rows, &optional),
        sessions.total,
        more.unwrap_or_default()
    )
}

/// `POOL/SERVER`, or only the pool of a session that has no server; `None`: it has no pool.
pub(super) fn server_of(session: &SessionBody) -> Option<String> {
    match (&session.pool, &session.server) {
        (Some(pool), Some(server)) => Some(format!("{pool}/{server}")),
        (pool, _) => pool.clone(),
    }
}

fn row(session: &SessionBody) -> [String; 13] {
    let ms = |ms| duration(Duration::from_millis(ms));
    let rtt = |us: u32| format!("{:.1}", f64::from(us) / 1000.0);
    let rtts = session.client_rtt_us.zip(session.server_rtt_us);
    [
        session.id.to_string(),
        session.listener.clone(),
        session.client.clone(),
        or_dash(session.sni.clone()),
        or_dash(session.database.clone()),
        or_dash(session.user.clone()),
        or_dash(server_of(session)),
        ms(session.age_ms),
        ms(session.idle_ms),
        size(session.bytes_up),
        size(session.bytes_down),
        format!("{}/s {}/s", size(session.rate_up), size(session.rate_down)),
        or_dash(rtts.map(|(client, server)| format!("{} {}ms", rtt(client), rtt(server)))),
    ]
}
