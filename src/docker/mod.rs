//! The API of a Docker engine over its Unix socket (Docker Engine API,
//! <https://docs.docker.com/reference/api/engine/>).
//!
//! Discovery needs only `GET /version`, `GET /containers/json` and `GET /events`: a proxy in front of the socket may
//! refuse all other requests. Clones that are containers need more.

mod engine;
mod endpoint;
mod events;
mod image;
mod log;
mod container;

pub(crate) use container::{ContainerSpec, remove_labelled_until};
pub(crate) use endpoint::{HOST_NETWORK, NetworkEndpoint};
pub(crate) use engine::{DockerEngine, DockerError, Rejection};
pub(crate) use events::{DockerEvent, DockerEvents};
pub(crate) use log::ContainerLog;
