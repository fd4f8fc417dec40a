//! `GET /api/v1/route`: where such a connection would go now, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use tokio::time::Instant;

use super::Admin;
use super::answers::{Routed, Verdict};
use super::error::Refusal;
use crate::addr::ClientAddr;
use crate::name::Sni;
use crate::plan::{Plan, PoolPlan};
use crate::route::{self, RouteChoice, RouteInput};
use crate::sniff::hello::ProtocolList;

/// The connection that is asked about.
#[derive(Debug, Default)]
pub struct Asked {
    listener: Option<String>,
    sni: Option<String>,
    alpn: Vec<String>,
    from: Option<IpAddr>,
}

impl Asked {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(query: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "listener" if asked.listener.is_none() => asked.listener = Some(value.into_owned()),
                "sni" if asked.sni.is_none() => asked.sni = Some(value.into_owned()),
                "alpn" => asked.alpn.push(value.into_owned()),
                "from" if asked.from.is_none() => {
                    let address = value.parse();
                    asked.from = Some(address.map_err(|_| "`from` is an IP address")?);
                }
                "listener" | "sni" | "from" => return Err(format!("`{key}` is there twice")),
                _ => {
                    let what =
                        format!("unknown `{key}`: there are `listener`, `sni`, `alpn` (as often as wanted), `from`");
                    return Err(what);
                }
            }
        }
        Ok(asked)
    }
}

pub(super) async fn routed(
    State(admin): State<Arc<Admin>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Routed>, Refusal> {
    let asked = Asked::read(query.as_deref().unwrap_or("")).map_err(Refusal::bad)?;
    explain(&admin.live.plan(), &asked).map(Json)
}

fn explain(plan: &Plan, asked: &Asked) -> Result<Routed, Refusal> {
    let listener = asked.listener.as_deref();
    let listener = plan.listeners.iter().find(|there| Some(&*there.name) == listener);
    let listener = listener.ok_or_else(|| {
        let names: Vec<_> = plan.listeners.iter().map(|listener| &*listener.name).collect();
        let there_is = format!("there is {}", names.join(", "));
        match asked.listener {
            Some(_) => Refusal::missing(format!("there is no such `listener`; {there_is}")),
            None => Refusal::bad(format!("`listener` is missing; {there_is}")),
        }
    })?;
    // What counts as no name of clients counts as none here.
    let name = asked.sni.as_deref().and_then(|sni| Sni::from_config(sni).ok());
    let alpn = ProtocolList::of(&asked.alpn);
    let explanation = listener.routes.explain(&RouteInput {
        name: name.as_ref(),
        alpn: &alpn,
        client: asked.from.map(|ip| ClientAddr::new((ip, 0).into())),
    });
    let verdicts = explanation.routes.iter().map(|(route, verdict)| {
        let (word, why) = match verdict {
            route::RouteVerdict::Taken(entries) => ("taken", entries.describe()),
            route::RouteVerdict::Outranked { by, because } => ("outranked", vec![format!("{by} {}", because.as_str())]),
            route::RouteVerdict::PassedOver(unmet) => (
                "passed over",
                unmet.iter().map(|condition| condition.wanted(route)).collect(),
            ),
        };
        Verdict {
            route: route.name.to_string(),
            verdict: word.to_owned(),
            why,
        }
    });
    let (route, pool): (Option<&Arc<str>>, Option<&Arc<PoolPlan>>) = match &explanation.choice {
        RouteChoice::Route { route, pool } => (Some(route), Some(pool)),
        RouteChoice::Default(pool) => (None, Some(pool)),
        RouteChoice::Refused { route } => (Some(route), None),
        RouteChoice::NoRoute => (None, None),
    };
    let servers = pool.map_or(Vec::new(), |pool| pool.pool.in_order(asked.from, Instant::now()));
    Ok(Routed {
        route: route.map(ToString::to_string),
        pool: pool.map(|pool| pool.pool.name().to_string()),
        routes: verdicts.collect(),
        servers: servers.iter().map(|server| server.spec().label.to_string()).collect(),
    })
}
