//! Starting, the command line, draining, and exit codes.

mod drain;
mod init;
mod trimmed;
mod restart;
mod commands;
mod demo;
mod service_manager;
mod socket_activation;
mod top;
