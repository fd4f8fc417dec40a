//! `tcp-request … accept` and `reject`: the first rule of a set that matches holds. Here, `deny` holds before `allow`, and
//! both hold before routes.

use super::condition::{AclTest, Term};
use super::line::LineOutcome;
use crate::addr::parse_network;

/// The clients that the rules of one set have accepted so far: later rules of the set do not apply to them.
#[derive(Debug, Default)]
pub(super) struct AcceptedClients {
    /// Those in these networks.
    networks: Vec<String>,
    /// Whether there are others, by their server names for instance.
    has_others: bool,
    /// Whether a rule was for all clients: later ones have no effect.
    pub(super) is_settled: bool,
}

impl AcceptedClients {
    /// `accept if`.
    pub(super) fn accept(&mut self, alternatives: &[Vec<Term>]) -> LineOutcome {
        let mut outcome = LineOutcome::Carried;
        for terms in alternatives {
            match terms.as_slice() {
                [
                    Term {
                        is_negated: false,
                        test,
                    },
                ] => match test {
                    AclTest::From(networks) => {
                        self.networks.extend_from_slice(networks);
                        continue;
                    }
                    AclTest::ClientHello | AclTest::Always | AclTest::Sni(_) => {}
                    _ => outcome = LineOutcome::LeftOut(""),
                },
                _ => outcome = LineOutcome::LeftOut(""),
            }
            self.has_others = true;
        }
        outcome
    }

    /// `accept unless`.
    pub(super) fn accept_unless(&mut self) -> LineOutcome {
        self.has_others = true;
        LineOutcome::LeftOut("")
    }

    /// Rejects all clients but those in these networks, and those that were accepted: the networks that may pass.
    ///
    /// # Errors
    /// Why this cannot be carried over.
    pub(super) fn only(&self, networks: &[String]) -> Result<Vec<String>, &'static str> {
        if self.has_others {
            return Err("write routes for the clients that may pass");
        }
        let both = [&self.networks, networks].concat();
        if both.is_empty() {
            return Err("it would refuse all clients");
        }
        Ok(both)
    }

    /// A rule that rejects clients in these networks (`None`: of any). Tells if those that were accepted may be among them.
    pub(super) fn reject(&self, networks: Option<&[String]>) -> LineOutcome {
        let is_rejected =
            |accepted: &&String| networks.is_none_or(|networks| networks.iter().any(|other| overlap(accepted, other)));
        let both: Vec<&str> = self.networks.iter().filter(is_rejected).map(String::as_str).collect();
        if self.has_others {
            return LineOutcome::Noted(String::from(
                "clients that an earlier line accepts are rejected here, too",
            ));
        }
        if both.is_empty() {
            return LineOutcome::Carried;
        }
        LineOutcome::Noted(format!(
            "{}: accepted by an earlier line, but rejected here where both match",
            both.join(" ")
        ))
    }
}

/// Whether a client may be in both networks.
fn overlap(one: &str, other: &str) -> bool {
    match (parse_network(one), parse_network(other)) {
        (Ok(one), Ok(other)) => one.contains(&other) || other.contains(&one),
        _ => true,
    }
}
