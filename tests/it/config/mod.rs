//! Configuration files, their mistakes, and the README.

mod config_errors;
mod config_files;
mod readme;
