//! The network namespace of a thread or a process, and the runtime of a thread.

use std::fs::File;
use std::process::Command;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

/// A network namespace that `ip netns` has created, by its name under `/run/netns`; `None` is the namespace in which
/// this process started.
#[derive(Clone, Debug)]
pub(crate) struct NetworkNamespace(pub(crate) Option<String>);

impl NetworkNamespace {
    /// Moves this thread to the namespace, for all sockets that it opens from now on.
    pub(crate) fn enter(&self) {
        let Some(name) = &self.0 else { return };
        let namespace = File::open(format!("/run/netns/{name}")).expect("the namespace exists");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("needs root");
    }

    /// A command that runs in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let Some(name) = &self.0 else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, program]); // `ip` execs the program, which gets the process ID of `ip`
        command
    }
}

/// A runtime on the current thread.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built")
}
