//! Starting, the command line, draining, and exit codes.

mod drain;
mod init;
mod trimmed;
mod restart;
mod commands;
mod checked_files;
mod pipes;
mod demo;
mod service_manager;
mod socket_activation;
mod top;
