//! stub
pub mod access_log;
