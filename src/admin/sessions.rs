//! `/api/v1/sessions`: who is there, and how to end one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use tokio::task::yield_now;

use super::Admin;
use super::answers::{Killed, Session, Sessions};
use super::error::Refusal;
use crate::account::{Ending, Record, Seen};

/// Sessions in one answer, where nothing is said.
const LIMIT: usize = 100;

/// Sessions in one answer at most: of each of them the kernel is asked twice.
const LIMIT_MAX: usize = 1000;

/// So many are looked at before others have a turn.
const TURN: usize = 256;

/// Which sessions, and how many of them. What is compared is compared exactly.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    id: Option<u64>,
    listener: Option<String>,
    route: Option<String>,
    pool: Option<String>,
    server: Option<String>,
    sni: Option<String>,
    /// An address, with or without the port.
    peer: Option<String>,
    /// The same.
    client: Option<String>,
    /// At least so old.
    min_age: Option<String>,
    /// No byte moved for at least so long.
    min_idle: Option<String>,
    /// At least so many bytes, both ways together.
    min_bytes: Option<u64>,
    /// The same of bytes a second.
    min_rate: Option<u64>,
    /// At least so far away, at either end.
    min_rtt: Option<String>,
    limit: Option<usize>,
    /// Only those with a greater number.
    after: Option<u64>,
}

/// A filter that has been read.
#[derive(Debug)]
pub struct Sieve {
    filter: Filter,
    min_age: Duration,
    min_idle: Duration,
    min_rtt: Duration,
    limit: usize,
}

impl Filter {
    /// What it lets through.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(self) -> Result<Sieve, String> {
        let limit = self.limit.unwrap_or(LIMIT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(format!("`limit` is 1 to {LIMIT_MAX}"));
        }
        let read = |key: &str, text: &Option<String>| {
            let read = text.as_deref().map(crate::units::parse_duration).transpose();
            let read = read.map_err(|label| format!("`{key}` is not a duration: {label}"));
            read.map(Option::unwrap_or_default)
        };
        Ok(Sieve {
            min_age: read("min_age", &self.min_age)?,
            min_idle: read("min_idle", &self.min_idle)?,
            min_rtt: read("min_rtt", &self.min_rtt)?,
            limit,
            filter: self,
        })
    }
}

impl Sieve {
    fn passes(&self, record: &Record, seen: &Seen) -> bool {
        let is =
            |wanted: &Option<String>, there: Option<&str>| wanted.as_ref().is_none_or(|wanted| there == Some(wanted));
        let at = |wanted: &Option<String>, there: SocketAddr| {
            let is = |wanted: &String| *wanted == there.to_string() || *wanted == there.ip().to_string();
            wanted.as_ref().is_none_or(is)
        };
        let filter = &self.filter;
        is(&filter.listener, Some(&seen.listener))
            && is(&filter.route, seen.route.as_deref())
            && is(&filter.pool, seen.pool.as_deref())
            && is(&filter.server, seen.server.as_deref())
            && is(&filter.sni, seen.sni.as_deref())
            && at(&filter.peer, seen.peer.socket())
            && at(&filter.client, seen.client.socket())
            && seen.age >= self.min_age
            && seen.idle >= self.min_idle
            && filter.id.is_none_or(|id| id == seen.id)
            && seen.bytes_up + seen.bytes_down >= filter.min_bytes.unwrap_or(0)
            && seen.rate_up + seen.rate_down >= filter.min_rate.unwrap_or(0)
            && (self.min_rtt.is_zero() || self.is_far(record))
    }

    /// The kernel is asked, hence last.
    fn is_far(&self, record: &Record) -> bool {
        let ends = record.tcp_info().unwrap_or_default();
        let is_far = |rtt_us: u32| Duration::from_micros(rtt_us.into()) >= self.min_rtt;
        ends.into_iter().flatten().any(|info| is_far(info.rtt_us))
    }
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    filter: Result<Query<Filter>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Sessions>, Refusal> {
    let Query(filter) = filter.map_err(|error| Refusal::bad(error.body_text()))?;
    let sieve = filter.read().map_err(Refusal::bad)?;
    let after = sieve.filter.after.unwrap_or(0);
    let mut records: Vec<Arc<Record>> = Vec::new();
    for ledger in &admin.ledgers {
        records.extend(ledger.records());
        yield_now().await;
    }
    records.sort_unstable_by_key(|record| record.id());
    let (mut total, mut sessions, mut next) = (0, Vec::new(), None);
    for turn in records.chunks(TURN) {
        for record in turn {
            let seen = record.seen();
            if !sieve.passes(record, &seen) {
                continue;
            }
            total += 1;
            if seen.id > after && sessions.len() < sieve.limit {
                sessions.push(shown(record, seen));
            } else if seen.id > after {
                next = sessions.last().map(|last: &Session| last.id);
            }
        }
        yield_now().await;
    }
    Ok(Json(Sessions { total, sessions, next }))
}

fn shown(record: &Record, seen: Seen) -> Session {
    let [client, server] = record.tcp_info().unwrap_or_default();
    let text = |shared: Option<Arc<str>>| shared.as_deref().map(str::to_owned);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Session {
        id: seen.id,
        listener: seen.listener.to_string(),
        peer: seen.peer.to_string(),
        client: seen.client.to_string(),
        sni: text(seen.sni),
        alpn: seen.alpn.map(Into::into),
        route: text(seen.route),
        pool: text(seen.pool),
        server: text(seen.server),
        age_ms: ms(seen.age),
        idle_ms: ms(seen.idle),
        bytes_up: seen.bytes_up,
        bytes_down: seen.bytes_down,
        rate_up: seen.rate_up,
        rate_down: seen.rate_down,
        client_rtt_us: client.map(|info| info.rtt_us),
        server_rtt_us: server.map(|info| info.rtt_us),
    }
}

pub(super) async fn kill(
    State(admin): State<Arc<Admin>>,
    id: Result<Path<u64>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Killed>, Refusal> {
    let Path(id) = id.map_err(|error| Refusal::bad(error.body_text()))?;
    let records = admin.ledgers.iter().flat_map(|ledger| ledger.records());
    let cut = records
        .filter(|record| record.id() == id)
        .any(|record| record.cut(Ending::Killed));
    if cut {
        Ok(Json(Killed { killed: id }))
    } else {
        Err(Refusal::missing(format!(
            "there is no session {id}, or it is ending already"
        )))
    }
}
