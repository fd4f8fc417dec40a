//! `tcp-request … accept` and `reject`. HAProxy has a set of rules for each of `connection`, `session` and `content`,
//! and applies the first matching rule of each set. acequia applies `deny` before `allow`, and both before routes.

use std::collections::HashSet;

use super::super::imported::ImportedRoute;
use super::super::networks::{EVERYWHERE, common, without};
use super::super::route_order::wider_wildcards;
use super::condition::{AclTest, Term};
use super::line::LineOutcome;

/// The clients that the rules of one set have accepted so far: later rules of the set do not apply to them.
#[derive(Debug, Default)]
pub(super) struct AcceptedClients {
    /// The networks of accepted clients.
    networks: Vec<String>,
    /// The server names of accepted clients, as patterns.
    names: HashSet<String>,
    /// The wildcards that match one of these names.
    wildcards: HashSet<String>,
    /// Whether a rule has accepted clients that neither `networks` nor `names` describes.
    accepts_by_other_tests: bool,
    /// Whether a rule was for all clients. Later rules of the set then have no effect.
    pub(super) is_settled: bool,
}

impl AcceptedClients {
    /// `accept if` and `accept unless`.
    pub(super) fn accept(&mut self, alternatives: &[Vec<Term>], is_unless: bool) -> LineOutcome {
        if let Some(networks) = networks_of(alternatives, is_unless) {
            self.networks.extend(networks);
            return LineOutcome::Carried;
        }
        if is_unless {
            // The condition describes clients that are not accepted: its networks must not be added.
            self.accepts_by_other_tests = true;
            return LineOutcome::LeftOut("");
        }
        let mut outcome = LineOutcome::Carried;
        for terms in alternatives {
            match (networks_of(std::slice::from_ref(terms), false), terms.as_slice()) {
                (Some(networks), _) => self.networks.extend(networks),
                (
                    None,
                    [
                        Term {
                            is_negated: false,
                            test: AclTest::Sni { names, is_partial },
                        },
                    ],
                ) => {
                    self.names.extend(names.iter().cloned());
                    let wildcards = names.iter().flat_map(|name| wider_wildcards(name));
                    self.wildcards.extend(wildcards);
                    self.accepts_by_other_tests |= is_partial;
                }
                (
                    None,
                    [
                        Term {
                            is_negated: false,
                            test: AclTest::ClientHello | AclTest::Always,
                        },
                    ],
                ) => self.accepts_by_other_tests = true,
                _ => {
                    self.accepts_by_other_tests = true;
                    outcome = LineOutcome::LeftOut("");
                }
            }
        }
        outcome
    }

    /// A rule that rejects all clients except those in these networks. Returns the networks that may pass: these, and
    /// those accepted so far.
    ///
    /// # Errors
    /// Why this cannot be carried over.
    pub(super) fn only(&self, networks: &[String]) -> Result<Vec<String>, &'static str> {
        if self.accepts_beyond_networks() {
            return Err("write routes for the clients that may pass");
        }
        let allowed = [&self.networks, networks].concat();
        if allowed.is_empty() {
            return Err("it would refuse all clients");
        }
        Ok(allowed)
    }

    /// A rule that rejects clients in these networks. Returns the networks to deny.
    pub(super) fn reject(&self, networks: &[String]) -> (Vec<String>, LineOutcome) {
        match self.without_accepted(networks) {
            Some(left) => (left, self.rejection_outcome()),
            None => {
                let note =
                    "clients that an earlier line accepts are rejected here, too (too many networks to exclude them)";
                (networks.to_vec(), LineOutcome::Noted(String::from(note)))
            }
        }
    }

    /// These networks without those of accepted clients. `None`: there are too many.
    pub(super) fn without_accepted(&self, networks: &[String]) -> Option<Vec<String>> {
        without(networks, &self.networks)
    }

    /// Whether clients are accepted by something other than their networks.
    pub(super) fn accepts_beyond_networks(&self) -> bool {
        self.accepts_by_other_tests || !self.names.is_empty()
    }

    /// Removes accepted names from those that a rule rejects. Returns whether any is left.
    pub(super) fn remove_names(&self, rejected: &mut Vec<String>) -> bool {
        let is_accepted = |pattern: &String| self.names.contains(pattern);
        rejected.retain(|name| !(is_accepted(name) || wider_wildcards(name).any(|wildcard| is_accepted(&wildcard))));
        !rejected.is_empty()
    }

    /// The outcome of a rule that rejects clients and becomes this refusing route: a note if the route may refuse
    /// accepted clients.
    pub(super) fn note_on_refusing(&self, route: &ImportedRoute) -> LineOutcome {
        let rejects_all_names = route.sni.is_empty() && !self.names.is_empty();
        let rejects_accepted = rejects_all_names || route.sni.iter().any(|name| self.wildcards.contains(name));
        if self.accepts_by_other_tests || rejects_accepted {
            return self.rejection_outcome();
        }
        if self.networks.is_empty() {
            return LineOutcome::Carried;
        }
        LineOutcome::Noted(format!(
            "{}: accepted by an earlier line, but rejected here where both lines match",
            self.networks.join(" ")
        ))
    }

    /// The outcome of a rule that rejects clients and is carried over: a note if clients were accepted by something
    /// other than their networks, because the rule may reject these, too.
    fn rejection_outcome(&self) -> LineOutcome {
        match self.accepts_beyond_networks() {
            false => LineOutcome::Carried,
            true => LineOutcome::Noted(String::from(
                "clients that an earlier line accepts are rejected here, too",
            )),
        }
    }
}

/// The networks of the clients for which at least one alternative holds, or, with `is_unless`, no alternative holds.
/// `None`: something other than networks is tested, or there are too many networks.
pub(super) fn networks_of(alternatives: &[Vec<Term>], is_unless: bool) -> Option<Vec<String>> {
    if alternatives
        .iter()
        .flatten()
        .any(|term| !matches!(term.test, AclTest::Networks(_)))
    {
        return None;
    }
    if let [terms] = alternatives
        && is_unless
        && terms.iter().all(|term| term.is_negated)
    {
        // `unless !A !B` means `if A or B`. The networks are kept as they are written.
        return Some(terms.iter().flat_map(networks_tested).cloned().collect());
    }
    let all = EVERYWHERE.map(String::from);
    let mut of_any = Vec::new();
    for terms in alternatives {
        let mut of_all: Option<Vec<String>> = None;
        let mut excluded = Vec::new();
        for term in terms {
            let networks = networks_tested(term);
            if term.is_negated {
                excluded.extend_from_slice(networks);
            } else {
                of_all = Some(match of_all {
                    None => networks.to_vec(),
                    Some(others) => common(&others, networks)?,
                });
            }
        }
        of_any.extend(without(of_all.as_deref().unwrap_or(&all), &excluded)?);
    }
    if is_unless {
        without(&all, &of_any)
    } else {
        Some(of_any)
    }
}

fn networks_tested(term: &Term) -> &[String] {
    match &term.test {
        AclTest::Networks(networks) => networks,
        _ => &[],
    }
}
