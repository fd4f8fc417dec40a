//! The admin port and socket: metrics, API, commands that steer.

mod port;
mod admin_flood;
mod admin_socket;
mod api;
mod api_docs;
mod secrets;
mod steering;
mod metrics;
