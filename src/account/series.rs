//! The series of listeners, pools, servers and paths. A path is a listener with the pool and the server chosen for a
//! session ([`PathKey`]). The series hold their counters, so that no session looks a metric up by name.

mod counters;
mod tls;
mod listener;
mod pool;
mod server;
mod path;

pub(super) use counters::{METADATA, SharedRecorder, label};
pub use listener::{CancelPlacement, ListenerId, ListenerSeries, RouteCount, SessionRoute};
pub use path::{PathKey, PathSeries};
pub(super) use path::{PathRef, WorkerPath};
pub(super) use pool::PoolSeries;
pub use server::{CheckResult, ServerSeries};
pub use tls::HandshakeResult;
