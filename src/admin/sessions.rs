//! `/api/v1/sessions`: lists the open sessions, and ends one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use serde::Deserialize;
use tokio::task::yield_now;

use super::access::ApiClient;
use super::context::Admin;
use super::error::ApiError;
use super::session_bodies::{KilledBody, SessionBody, SessionsBody};
use crate::account::{Ending, Record, SessionView};
use crate::units::parse_duration;

/// The default of `limit`.
const LIMIT_DEFAULT: usize = 100;

/// The largest `limit`. Each session shown that is relayed costs two system calls, for the round-trip times.
const LIMIT_MAX: usize = 1000;

/// The number of sessions that are examined before the task yields.
const YIELD_AFTER: usize = 256;

/// The query: conditions, all of which must hold, and the page. Names and addresses are compared exactly.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionQuery {
    id: Option<u64>,
    listener: Option<String>,
    route: Option<String>,
    pool: Option<String>,
    server: Option<String>,
    sni: Option<String>,
    database: Option<String>,
    user: Option<String>,
    /// The address that has connected, with or without the port.
    peer: Option<String>,
    /// The address of the client, which a PROXY header may have named; with or without the port.
    client: Option<String>,
    /// The minimum age, as a duration.
    min_age: Option<String>,
    /// The minimum time since the last byte moved, as a duration.
    min_idle: Option<String>,
    /// The minimum number of bytes in both directions together.
    min_bytes: Option<u64>,
    /// The minimum rate in both directions together, in bytes per second.
    min_rate: Option<u64>,
    /// The minimum round-trip time of at least one of the two ends, as a duration.
    min_rtt: Option<String>,
    /// Absent: the oldest come first.
    sort: Option<SessionOrder>,
    limit: Option<usize>,
    /// Only sessions with a greater number. Cannot be combined with `sort`.
    after: Option<u64>,
}

/// The amount to sort by: the sessions with the largest amounts come first.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SessionOrder {
    /// Bytes in both directions together.
    Bytes,
    /// Bytes a second in both directions together.
    Rate,
    /// The time since the last byte moved.
    Idle,
    /// The longer round-trip time of the two ends.
    Rtt,
}

impl SessionOrder {
    /// The amount that is compared. [`Self::Rtt`] costs two system calls if the session is relayed.
    fn amount(self, record: &Record, view: &SessionView) -> u64 {
        match self {
            Self::Bytes => view.bytes_up + view.bytes_down,
            Self::Rate => view.rate_up + view.rate_down,
            Self::Idle => u64::try_from(view.idle.as_millis()).unwrap_or(u64::MAX),
            Self::Rtt => {
                let ends = record.tcp_info().unwrap_or_default();
                let longest = ends.into_iter().flatten().map(|info| info.rtt_us).max();
                longest.map_or(0, u64::from)
            }
        }
    }
}

/// A valid query, with its durations parsed.
#[derive(Debug)]
pub struct SessionFilter {
    query: SessionQuery,
    min_age: Duration,
    min_idle: Duration,
    min_rtt: Duration,
    limit: usize,
}

impl SessionQuery {
    /// Checks the query.
    ///
    /// # Errors
    /// A duration is invalid, `limit` is out of range, or there is both `sort` and `after`.
    pub fn parse(self) -> Result<SessionFilter, String> {
        let limit = self.limit.unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("`limit` must be 1 to {LIMIT_MAX}"));
        }
        if self.sort.is_some() && self.after.is_some() {
            return Err("`after` needs the sessions in order of their numbers: remove `after` or `sort`".into());
        }
        let parse = |key: &str, text: &Option<String>| {
            let parsed = text.as_deref().map(parse_duration).transpose();
            let parsed = parsed.map_err(|error| format!("`{key}` is not a duration: {error}"));
            parsed.map(Option::unwrap_or_default)
        };
        Ok(SessionFilter {
            min_age: parse("min_age", &self.min_age)?,
            min_idle: parse("min_idle", &self.min_idle)?,
            min_rtt: parse("min_rtt", &self.min_rtt)?,
            limit,
            query: self,
        })
    }
}

impl SessionFilter {
    fn matches(&self, record: &Record, view: &SessionView) -> bool {
        let is_name = |expected: &Option<String>, actual: Option<&str>| {
            expected.as_ref().is_none_or(|expected| actual == Some(expected))
        };
        let is_address = |expected: &Option<String>, actual: &dyn Display, ip: Option<IpAddr>| {
            let is_ip = |expected: &String| ip.is_some_and(|ip| *expected == ip.to_string());
            let is_equal = |expected: &String| *expected == actual.to_string() || is_ip(expected);
            expected.as_ref().is_none_or(is_equal)
        };
        let query = &self.query;
        is_name(&query.listener, Some(&view.listener))
            && is_name(&query.route, view.route.as_deref())
            && is_name(&query.pool, view.pool.as_deref())
            && is_name(&query.server, view.server.as_deref())
            && is_name(&query.sni, view.sni.as_deref())
            && is_name(&query.database, view.database.as_deref())
            && is_name(&query.user, view.user.as_deref())
            && is_address(&query.peer, &view.peer, view.peer.ip())
            && is_address(&query.client, &view.client, view.client.ip())
            && view.age >= self.min_age
            && view.idle >= self.min_idle
            && query.id.is_none_or(|id| id == view.id)
            && view.bytes_up + view.bytes_down >= query.min_bytes.unwrap_or(0)
            && view.rate_up + view.rate_down >= query.min_rate.unwrap_or(0)
            // Last, because it costs system calls.
            && (self.min_rtt.is_zero() || self.has_min_rtt(record))
    }

    fn has_min_rtt(&self, record: &Record) -> bool {
        let ends = record.tcp_info().unwrap_or_default();
        let is_enough = |rtt_us: u32| Duration::from_micros(rtt_us.into()) >= self.min_rtt;
        ends.into_iter().flatten().any(|info| is_enough(info.rtt_us))
    }
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<SessionQuery>, QueryRejection>,
) -> Result<Json<SessionsBody>, ApiError> {
    let Query(query) = query?;
    let filter = query.parse().map_err(ApiError::bad_request)?;
    let after = filter.query.after.unwrap_or(0);
    let mut records: Vec<Arc<Record>> = Vec::new();
    for ledger in &admin.ledgers {
        records.extend(ledger.records());
        yield_now().await;
    }
    records.sort_unstable_by_key(|record| record.id());
    let (mut total, mut sessions, mut next) = (0, Vec::new(), None);
    // With `sort`: the amounts and numbers of the `limit` sessions with the greatest amounts so far. `pop` removes the
    // least amount (`Reverse`), and among equal amounts the highest number.
    let mut greatest = BinaryHeap::new();
    for chunk in records.chunks(YIELD_AFTER) {
        for record in chunk {
            let view = record.view();
            if !filter.matches(record, &view) {
                continue;
            }
            total += 1;
            if let Some(order) = filter.query.sort {
                greatest.push(Reverse((order.amount(record, &view), Reverse(view.id))));
                if greatest.len() > filter.limit {
                    greatest.pop();
                }
            } else if view.id > after && sessions.len() < filter.limit {
                sessions.push(session_body(record, view));
            } else if view.id > after {
                // The page is full, and there is at least one more.
                next = sessions.last().map(|last: &SessionBody| last.id);
            }
        }
        yield_now().await;
    }
    for Reverse((_, Reverse(id))) in greatest.into_sorted_vec() {
        if let Ok(index) = records.binary_search_by_key(&id, |record| record.id()) {
            sessions.push(session_body(&records[index], records[index].view()));
        }
    }
    Ok(Json(SessionsBody { total, sessions, next }))
}

fn session_body(record: &Record, view: SessionView) -> SessionBody {
    let [client, server] = record.tcp_info().unwrap_or_default();
    let text = |shared: Option<Arc<str>>| shared.as_deref().map(str::to_owned);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    SessionBody {
        id: view.id,
        listener: view.listener.to_string(),
        peer: view.peer.to_string(),
        client: view.client.to_string(),
        sni: text(view.sni),
        alpn: view.alpn.map(Into::into),
        database: view.database,
        user: view.user,
        route: text(view.route),
        pool: text(view.pool),
        server: text(view.server),
        age_ms: ms(view.age),
        idle_ms: ms(view.idle),
        bytes_up: view.bytes_up,
        bytes_down: view.bytes_down,
        rate_up: view.rate_up,
        rate_down: view.rate_down,
        client_rtt_us: client.map(|info| info.rtt_us),
        server_rtt_us: server.map(|info| info.rtt_us),
    }
}

pub(super) async fn kill(
    State(admin): State<Arc<Admin>>,
    Extension(by): Extension<ApiClient>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<KilledBody>, ApiError> {
    let Path(id) = id?;
    let mut records = admin.ledgers.iter().flat_map(|ledger| ledger.records());
    let found = records.find(|record| record.id() == id);
    // `cut` returns whether it ended the session.
    let Some(record) = found.filter(|record| record.cut(Ending::Killed)) else {
        return Err(ApiError::not_found(format!("no open session has the number {id}")));
    };
    let SessionView {
        listener,
        client,
        pool,
        server,
        ..
    } = record.view();
    tracing::info!(
        id,
        %listener,
        %client,
        pool = pool.as_deref(),
        server = server.as_deref(),
        %by,
        "session killed"
    );
    Ok(Json(KilledBody { killed: id }))
}
