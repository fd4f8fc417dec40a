//! Configuration files, their error reports and schema, `acequia check --live`, and the README.

mod config_errors;
mod config_files;
mod live;
mod readme;
mod schema;
