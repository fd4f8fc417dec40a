//! The workloads with which each proxy is measured.

/// A named load.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) load: Load,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// A closed loop: each session sends this many bytes and waits for the echo, again and again. A slow answer delays
    /// the next message of its session.
    RoundTrips { sessions: usize, bytes: usize },
    /// An open loop: messages of 64 bytes are due at a fixed rate per second over all sessions. A session sends a
    /// message that is due only after the answer to its previous one. The latency counts from the time the message was
    /// due, and so includes this wait.
    Paced { sessions: usize, rate: u32 },
    /// Clients connect, exchange 64 bytes and close, again and again.
    NewSessions { clients: usize },
    /// Like `NewSessions`, but the message is a ClientHello for one of `names` names.
    NewByName { clients: usize, names: usize },
    /// A few clients connect, send a request, wait for the answer and close, again and again. The server sends the
    /// answer in two writes with Nagle's algorithm on. `by_name`: the request begins with a ClientHello. The latency is
    /// measured from before the connect to the end of the answer: if the second write waits for a delayed ACK, the
    /// latency includes this wait.
    FirstAnswer { answer: Answer, by_name: bool },
    /// Endless transfers.
    Bulk { sessions: usize, up: bool, down: bool },
    /// Round trips of 64 bytes beside `slow` clients, each of which reads an endless answer at 160 KiB per second.
    BesideSlow { sessions: usize, slow: usize },
}

impl Load {
    /// The unit of work that rates and CPU times refer to.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::RoundTrips { .. } | Self::Paced { .. } | Self::BesideSlow { .. } => "round trip",
            Self::NewSessions { .. } | Self::NewByName { .. } | Self::FirstAnswer { .. } => "session",
            Self::Bulk { .. } => "GB",
        }
    }

    /// Whether the load has a fixed rate, so that the measured rate means nothing.
    pub(crate) fn is_paced(self) -> bool {
        matches!(self, Self::Paced { .. })
    }
}

/// An answer in two writes. The last bytes of a client's request select it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// One byte in each write.
    Bytes,
    /// A certificate chain of 6 KiB, as OpenSSL sends one: 4 KiB first.
    Chain,
}

impl Answer {
    pub(crate) const ALL: [Self; 2] = [Self::Bytes, Self::Chain];

    /// The end of a request for this answer.
    pub(crate) const fn request_end(self) -> &'static [u8] {
        match self {
            Self::Bytes => b"\nanswer: two bytes\n",
            Self::Chain => b"\nanswer: a chain\n",
        }
    }

    /// The length of each write.
    pub(crate) const fn writes(self) -> [usize; 2] {
        match self {
            Self::Bytes => [1, 1],
            Self::Chain => [4096, 2048],
        }
    }
}

/// The number of names of each of the three listeners that route by name.
pub(crate) const NAME_COUNTS: [usize; 3] = [1, 100, 10_000];

/// All workloads, in the order in which they run and are reported.
pub(crate) fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    let mut add = |name: String, load| all.push(Workload { name, load });
    for sessions in [1, 16, 128, 1024, 8000] {
        let name = format!("64-byte round trips, {sessions} {}", plural(sessions, "session"));
        add(name, Load::RoundTrips { sessions, bytes: 64 });
    }
    add(
        "64-byte round trips, 128 sessions, 10,000/s".into(),
        Load::Paced {
            sessions: 128,
            rate: 10_000,
        },
    );
    add(
        "16 KiB round trips, 128 sessions".into(),
        Load::RoundTrips {
            sessions: 128,
            bytes: 16 * 1024,
        },
    );
    add("new sessions".into(), Load::NewSessions { clients: 64 });
    for names in NAME_COUNTS {
        let name = format!("new sessions by name, among {names} {}", plural(names, "name"));
        add(name, Load::NewByName { clients: 64, names });
    }
    for (name, answer, by_name) in [
        ("two small writes", Answer::Bytes, false),
        ("two small writes, by name", Answer::Bytes, true),
        ("a chain of 6 KiB, by name", Answer::Chain, true),
    ] {
        add(format!("first answer, {name}"), Load::FirstAnswer { answer, by_name });
    }
    for (direction, up, down) in [("down", false, true), ("up", true, false), ("both ways", true, true)] {
        for sessions in [1, 8] {
            let name = format!("bulk {direction}, {sessions} {}", plural(sessions, "session"));
            add(name, Load::Bulk { sessions, up, down });
        }
    }
    for (name, slow) in [("alone", 0), ("beside 64 slow readers", 64)] {
        add(
            format!("64-byte round trips, 64 sessions {name}"),
            Load::BesideSlow { sessions: 64, slow },
        );
    }
    all
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.into() } else { format!("{word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_names_are_unique() {
        let mut names: Vec<_> = all().into_iter().map(|workload| workload.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
