//! The API of a Docker engine over its Unix socket (Docker Engine API, <https://docs.docker.com/reference/api/engine/>).
//!
//! Who follows containers makes three requests, and a proxy before the socket needs to allow no others: `GET /version`,
//! `GET /containers/json` and `GET /events`. Clones that are containers need the rest.

mod engine;
mod endpoint;
mod events;
mod image;
mod log;
mod container;

pub(crate) use container::{ContainerSpec, remove_labelled};
pub(crate) use endpoint::{HOST_NETWORK, NetworkEndpoint};
pub(crate) use engine::{DockerEngine, DockerError};
pub(crate) use events::{DockerEvent, DockerEvents};
pub(crate) use log::ContainerLog;
