//! Configuration files, their error reports, and the README.

mod config_errors;
mod config_files;
mod live;
mod readme;
mod schema;
