//! Where a thread or a process stands: this machine's own network, or a namespace of it.

use std::fs::File;
use std::process::Command;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::{Builder, Runtime};

/// A network namespace by its name under `/run/netns`, as `ip netns` makes them; none: where the process started.
#[derive(Clone, Debug)]
pub(crate) struct Place(pub(crate) Option<String>);

impl Place {
    /// Moves this thread there; sockets that it opens from now on stand there.
    pub(crate) fn enter(&self) {
        let Some(name) = &self.0 else { return };
        let namespace = File::open(format!("/run/netns/{name}")).expect("the namespace was made before");
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("needs root");
    }

    /// A command that runs there.
    pub(crate) fn command(&self, program: &str) -> Command {
        let Some(name) = &self.0 else {
            return Command::new(program);
        };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name, program]); // which executes the program in its own stead
        command
    }
}

/// A runtime on this thread alone.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}
