//! The access log and the diagnostic log.

mod access_log;
mod diagnostic_log;
mod log_targets;
