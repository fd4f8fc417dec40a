//! Network namespaces that are connected with each other. Only root can create them.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::scope;

use rustix::process::getpid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::client::Client;
use super::is_root_for;
use super::process::{Finished, finished, must};

/// Namespaces connected as a star. Number 0 is the middle, in which acequia runs. The outer namespaces have the numbers
/// 1 and up. A link connects each of them with the middle. That of outer namespace 3, for example, has the device `v3`
/// with the address 10.98.3.1 in the middle, and `v0` with 10.98.3.2 in the outer namespace. Dropping this deletes the
/// namespaces.
pub struct Namespaces {
    names: Vec<String>,
}

impl Namespaces {
    /// Creates the middle and `outer_count` outer namespaces, and moves the calling thread to the middle. Processes
    /// that the thread starts run there. `None`, with a note on standard error, where namespaces are not available.
    pub fn enter(outer_count: usize) -> Option<Self> {
        if !is_root_for("a network namespace") {
            return None;
        }
        // The process and the thread make the names unique on this machine: each test has a thread of its own.
        let thread = format!("{:?}", std::thread::current().id());
        let thread: String = thread.chars().filter(char::is_ascii_digit).collect();
        let mut star = Self { names: Vec::new() };
        for number in 0..=outer_count {
            let name = format!("acequia-{}-{thread}-{number}", getpid().as_raw_nonzero());
            let made = finished(Command::new("ip").args(["netns", "add", &name]));
            if made.code != Some(0) {
                eprintln!("NOT TESTED: no network namespaces here: {}", made.stderr);
                return None;
            }
            star.names.push(name);
            star.ip(number, "link set lo up");
        }
        for number in 1..=outer_count {
            let (middle, outer) = (&star.names[0], &star.names[number]);
            let link = format!("link add v{number} netns {middle} type veth peer name v0 netns {outer}");
            must(Command::new("ip").args(link.split(' ')));
            star.ip(0, &format!("address add 10.98.{number}.1/24 dev v{number}"));
            star.ip(0, &format!("link set v{number} up"));
            star.ip(number, &format!("address add 10.98.{number}.2/24 dev v0"));
            star.ip(number, "link set v0 up");
        }
        star.go_to(0);
        Some(star)
    }

    /// Runs `ip` with these arguments for a namespace. It must succeed.
    fn ip(&self, number: usize, words: &str) {
        must(
            Command::new("ip")
                .args(["-n", &self.names[number]])
                .args(words.split(' ')),
        );
    }

    /// Runs a command in a namespace to its end.
    pub fn run(&self, number: usize, words: &str) -> Finished {
        let name = &self.names[number];
        finished(Command::new("ip").args(["netns", "exec", name]).args(words.split(' ')))
    }

    /// Moves the calling thread to a namespace.
    fn go_to(&self, number: usize) {
        let namespace = File::open(format!("/run/netns/{}", self.names[number])).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs `make` on a new thread in a namespace, and returns its result. The sockets that it opens belong to that
    /// namespace for good; the calling thread stays where it is.
    pub fn at<T: Send>(&self, number: usize, make: impl FnOnce() -> T + Send) -> T {
        scope(|scope| {
            let there = scope.spawn(|| {
                self.go_to(number);
                make()
            });
            there.join().unwrap()
        })
    }

    /// A listening socket in an outer namespace.
    pub fn listener(&self, number: usize) -> TcpListener {
        self.at(number, || TcpListener::bind(format!("10.98.{number}.2:0")).unwrap())
    }

    /// A client in an outer namespace. It connects to the middle's address on their link, at the port of `listener`.
    pub fn client(&self, number: usize, listener: SocketAddr) -> Client {
        let address = SocketAddr::new([10, 98, number as u8, 1].into(), listener.port());
        self.at(number, || Client::connect(address))
    }

    /// Makes a namespace drop all packets sent to it, until [`Self::accept_packets`].
    pub fn drop_packets(&self, number: usize) {
        for words in [
            "nft add table inet hole",
            "nft add chain inet hole input { type filter hook input priority 0 ; policy drop ; }",
        ] {
            let done = self.run(number, words);
            assert_eq!(done.code, Some(0), "{words}: {}", done.stderr);
        }
    }

    /// Ends what [`Self::drop_packets`] began.
    pub fn accept_packets(&self, number: usize) {
        assert_eq!(self.run(number, "nft delete table inet hole").code, Some(0));
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = finished(Command::new("ip").args(["netns", "delete", name]));
        }
    }
}
