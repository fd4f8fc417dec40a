//! Starting, restarting and draining, the command line, and the service manager.

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
