//! The API accepts exactly the queries of `sessions` and `route`, and the bodies of changes to a server, that
//! docs/api.md describes, and reads these bodies as described there.
#![no_main]

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use acequia::admin::route::RouteQuery;
use acequia::admin::servers::OverrideRequest;
use acequia::admin::sessions::SessionQuery;
use acequia::pool::Override;
use axum::Json;
use axum::extract::Query;
use axum::http::Uri;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    body(bytes);
    let uri = str::from_utf8(bytes)
        .ok()
        .and_then(|text| format!("/?{text}").parse().ok());
    if let Some(uri) = uri {
        sessions(&uri);
        route(&uri);
    }
});

fn body(bytes: &[u8]) {
    let parsed = Json::<OverrideRequest>::from_bytes(bytes).map_err(|error| error.body_text());
    let parsed = parsed.and_then(|Json(request)| request.parse());
    let documented = serde_json::from_slice(bytes).ok().and_then(|body| overrides(&body));
    match (&parsed, &documented) {
        // `documented` has only the last value of a duplicate key.
        (Err(message), Some(_)) => assert!(message.contains("duplicate field"), "{message}"),
        (Err(message), None) => assert!(!message.is_empty()),
        (Ok(overrides), _) => assert_eq!(Some(overrides), documented.as_ref()),
    }
}

/// The overrides that `POST /api/v1/servers/{pool}/{server}` makes of this body, as documented; `None`: it rejects the
/// body.
fn overrides(body: &Value) -> Option<Vec<Override>> {
    let body = body.as_object()?;
    let keys = ["use", "close_over", "weight"];
    let close_over = match body.get("close_over") {
        None | Some(Value::Null) => None,
        Some(text) => Some(duration(text.as_str()?)?),
    };
    let usage = match body.get("use") {
        None | Some(Value::Null) => None,
        Some(word) => Some(match (word.as_str()?, close_over) {
            ("enabled", None) => Override::Enable,
            ("draining", close_over) => Override::Drain { close_over },
            ("disabled", close_over) => Override::Disable { close_over },
            _ => return None,
        }),
    };
    let weight = match body.get("weight") {
        None => None,
        Some(Value::Null) => Some(Override::Weight(None)),
        Some(weight) => {
            let weight = weight.as_u64().filter(|weight| *weight <= 256)?;
            Some(Override::Weight(Some(u16::try_from(weight).ok()?)))
        }
    };
    let is_known = body.keys().all(|key| keys.contains(&key.as_str()));
    let overrides: Vec<_> = usage.into_iter().chain(weight).collect();
    let closes_nothing = close_over.is_some() && usage.is_none();
    (is_known && !overrides.is_empty() && !closes_nothing).then_some(overrides)
}

fn sessions(uri: &Uri) {
    let parsed = Query::<SessionQuery>::try_from_uri(uri).map_err(|error| error.body_text());
    let parsed = parsed.and_then(|Query(query)| query.parse());
    let has = |wanted: &str| pairs(uri).iter().any(|(key, _)| key == wanted);
    let documented = each_once(uri, &[])
        && !(has("sort") && has("after"))
        && pairs(uri).iter().all(|(key, value)| match key.as_str() {
            "listener" | "route" | "pool" | "server" | "sni" | "database" | "user" | "peer" | "client" => true,
            "sort" => ["bytes", "rate", "idle", "rtt"].contains(&value.as_str()),
            "min_age" | "min_idle" | "min_rtt" => duration(value).is_some(),
            "id" | "min_bytes" | "min_rate" | "after" => value.parse::<u64>().is_ok(),
            "limit" => value.parse().is_ok_and(|limit: u64| (1..=1000).contains(&limit)),
            _ => false,
        });
    assert_eq!(parsed.is_ok(), documented, "{parsed:?} of {uri}");
}

fn route(uri: &Uri) {
    let parsed = RouteQuery::parse(uri.query().unwrap_or_default());
    let documented = each_once(uri, &["alpn"])
        && pairs(uri).iter().all(|(key, value)| match key.as_str() {
            "listener" | "sni" | "alpn" | "database" | "user" => true,
            "peer" | "from" => value.parse::<IpAddr>().is_ok(),
            _ => false,
        });
    assert_eq!(parsed.is_ok(), documented, "{parsed:?} of {uri}");
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    let query = uri.query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn each_once(uri: &Uri, except: &[&str]) -> bool {
    let mut seen = HashSet::new();
    pairs(uri)
        .into_iter()
        .all(|(key, _)| except.contains(&key.as_str()) || seen.insert(key))
}

/// A whole number with its unit, such as `30s`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let milliseconds = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let number: u64 = text[..digits].parse().ok()?;
    number.checked_mul(milliseconds).map(Duration::from_millis)
}
