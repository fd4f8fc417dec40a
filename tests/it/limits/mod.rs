//! Limits of connections and sessions, queues, retirement of sessions, scaling, and the bounds of configuration keys.

mod max_connections;
mod backlog;
mod bounds;
mod max_sessions;
mod queue;
mod retire;
mod scale;
mod scale_containers;
mod scale_daemons;
mod scale_hooks;
mod scale_starts;
