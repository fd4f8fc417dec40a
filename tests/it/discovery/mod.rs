//! Servers that a source lists come and go, and no session is lost by it.

mod added;
mod announced;
mod dns;
mod docker;
mod docker_api;
mod etcd;
mod file;
mod fleet;
mod http;
mod kubernetes;
