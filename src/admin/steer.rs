//! What changes something: servers are steered, the configuration is read again.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::error::Refusal;
use super::guard::Visitor;
use super::state::{of_absent, of_server};
use super::{Admin, answers};
use crate::pool::{ServerPath, Steer, Steering};
use crate::reload::{Changes, ReloadError};

/// The largest weight, as in the configuration.
const WEIGHT_MAX: u16 = 256;

/// What is wanted of a server: one or both.
#[derive(Debug, Deserialize)]
pub struct Order {
    #[serde(rename = "use")]
    usage: Option<String>,
    close_over: Option<String>,
    /// Absent: as it is; null: the configured one.
    #[serde(default, deserialize_with = "said")]
    weight: Option<Option<u16>>,
    /// What is not known. As it takes any key, serde takes only an object for the whole, and no list of values.
    #[serde(flatten)]
    others: Map<String, Value>,
}

fn said<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<u16>>, D::Error> {
    Option::deserialize(value).map(Some)
}

impl Order {
    /// What is to be done, in this order.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(self) -> Result<Vec<Steer>, String> {
        if let Some(key) = self.others.keys().next() {
            return Err(format!("unknown `{key}`: there are `use`, `close_over`, `weight`"));
        }
        let close_over = self.close_over.as_deref().map(crate::units::duration).transpose();
        let close_over = close_over.map_err(|label| format!("`close_over` is not a duration: {label}"))?;
        let mut orders = Vec::new();
        match self.usage.as_deref() {
            Some("draining") => orders.push(Steer::Drain { close_over }),
            Some("disabled") => orders.push(Steer::Disable { close_over }),
            Some("enabled") | None if close_over.is_some() => {
                return Err("`close_over` goes with \"draining\" and \"disabled\"".into());
            }
            Some("enabled") => orders.push(Steer::Enable),
            Some(_) => return Err("`use` is \"enabled\", \"draining\" or \"disabled\"".into()),
            None => {}
        }
        match self.weight {
            Some(Some(weight)) if weight > WEIGHT_MAX => {
                return Err(format!("`weight` is 0 to {WEIGHT_MAX}, or null for the configured one"));
            }
            Some(weight) => orders.push(Steer::Weight(weight)),
            None => {}
        }
        if orders.is_empty() {
            return Err("say `use` (\"enabled\", \"draining\", \"disabled\") or `weight`".into());
        }
        Ok(orders)
    }
}

pub(super) async fn server(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
    path: Result<Path<(String, String)>, PathRejection>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Json<answers::Steered>, Refusal> {
    let Path((pool_name, server_name)) = path.map_err(|error| Refusal::bad(error.body_text()))?;
    let Json(order) = order.map_err(|error| Refusal::new(error.status(), error.body_text()))?;
    let orders = order.read().map_err(Refusal::bad)?;
    let live = &admin.live;
    let name: ServerPath = (pool_name.as_str().into(), server_name.as_str().into());
    let in_force = live.in_force();
    let pool = in_force.pool(&pool_name);
    let servers = pool.map_or_else(Default::default, |pool| pool.servers());
    let server = servers.iter().find(|server| *server.spec().label == *server_name);
    if server.is_none() && !live.absent().iter().any(|(absent, _)| *absent == name) {
        return Err(Refusal::missing(match pool {
            Some(_) => format!("pool `{pool_name}` has no server `{server_name}`"),
            None => format!("there is no pool `{pool_name}`"),
        }));
    }
    let by: Arc<str> = visitor.to_string().into();
    let mut steering = Steering::default();
    for order in orders {
        steering = live.steer(&name, order, Arc::clone(&by), SystemTime::now());
        tracing::info!(pool = pool_name, server = server_name, %by, %order, "server is steered");
    }
    live.forget_absent();
    Ok(Json(match server {
        Some(server) => answers::Steered::There(Box::new(of_server(server))),
        None => answers::Steered::Absent(of_absent(&name, &steering)),
    }))
}

pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(visitor): Extension<Visitor>,
) -> Result<Json<Changes>, Refusal> {
    let changes = admin.reloader.reload(visitor.to_string()).await;
    changes.map(Json).map_err(|error| {
        let status = match error {
            ReloadError::Configuration(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ReloadError::NoFile => StatusCode::CONFLICT,
            ReloadError::System(_) => StatusCode::INTERNAL_SERVER_ERROR,
            ReloadError::Ending => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, error.to_string())
    })
}
