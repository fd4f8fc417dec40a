//! ACLs, and the conditions of rules (configuration manual, section 7).

use std::collections::HashMap;

use super::super::imported::is_protocol;
use super::address::network;
use crate::name::NamePattern;

/// What an ACL tests, as far as it can be carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AclTest {
    /// The server name is one of these, or matches one.
    Sni {
        names: Vec<String>,
        /// Whether HAProxy accepts more names than these patterns match. For example, `-m end a.example` also accepts
        /// `nota.example`, and no pattern can say that.
        is_partial: bool,
    },
    /// The client offers one of these protocols.
    Alpn(Vec<String>),
    /// The client is in one of these networks.
    Networks(Vec<String>),
    /// The client sent a ClientHello.
    ClientHello,
    Always,
    /// It cannot be carried over, for this reason.
    Unknown(&'static str),
}

/// The ACLs of a section, by name.
#[derive(Debug, Default)]
pub(super) struct Acls(HashMap<String, AclTest>);

/// A test, or its opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) is_negated: bool,
    pub(super) test: AclTest,
}

impl Acls {
    /// Adds `acl NAME TEST…`. Several lines of one name are alternatives. Returns why this line
    /// cannot be carried over, if so.
    pub(super) fn add(&mut self, name: &str, words: &[String]) -> Option<&'static str> {
        let test = parse_test(words);
        let why = match &test {
            AclTest::Unknown(why) => Some(*why),
            _ => None,
        };
        let both = match (self.0.remove(name), test) {
            (None, test) => test,
            (
                Some(AclTest::Sni { names, is_partial }),
                AclTest::Sni {
                    names: new,
                    is_partial: is_new_partial,
                },
            ) => AclTest::Sni {
                names: joined(names, new),
                is_partial: is_partial || is_new_partial,
            },
            (Some(AclTest::Alpn(old)), AclTest::Alpn(new)) => AclTest::Alpn(joined(old, new)),
            (Some(AclTest::Networks(old)), AclTest::Networks(new)) => AclTest::Networks(joined(old, new)),
            (Some(AclTest::Unknown(why)), _) | (_, AclTest::Unknown(why)) => AclTest::Unknown(why),
            (Some(old), new) if old == new => new,
            (Some(_), _) => AclTest::Unknown("the lines of this ACL test different things"),
        };
        self.0.insert(name.to_owned(), both);
        why
    }

    /// The condition after `if`: alternatives, each of which needs all of its terms. An `or` without a term on one side
    /// adds no alternative (`parse_acl_cond` of HAProxy), so no alternative is empty. A condition without alternatives
    /// never holds.
    pub(super) fn condition(&self, words: &[String]) -> Vec<Vec<Term>> {
        let mut alternatives: Vec<Vec<Term>> = Vec::new();
        let mut begins = true; // whether the next term begins an alternative
        let mut is_negated = false; // whether an odd number of `!` stands before the next term
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            let name = word.trim_start_matches('!');
            is_negated ^= (word.len() - name.len()) % 2 == 1;
            if name.is_empty() {
                continue;
            }
            if name.eq_ignore_ascii_case("or") || name == "||" {
                (begins, is_negated) = (true, false);
                continue;
            }
            // Between `{` and `}` is an ACL without a name.
            let test = if name == "{" {
                let end = rest.iter().position(|word| word == "}").unwrap_or(rest.len());
                let anonymous = &rest[..end];
                rest = rest.get(end + 1..).unwrap_or_default();
                parse_test(anonymous)
            } else {
                self.named(name)
            };
            let term = Term { is_negated, test };
            match alternatives.last_mut() {
                Some(terms) if !begins => terms.push(term),
                _ => alternatives.push(vec![term]),
            }
            (begins, is_negated) = (false, false);
        }
        alternatives
    }

    fn named(&self, name: &str) -> AclTest {
        match (self.0.get(name), name) {
            (Some(test), _) => test.clone(),
            (None, "TRUE" | "WAIT_END" | "REQ_CONTENT") => AclTest::Always,
            (None, "LOCALHOST") => AclTest::Networks(vec![String::from("127.0.0.0/8"), String::from("::1")]),
            (None, _) => AclTest::Unknown("this ACL is not defined in the file, and cannot be carried over"),
        }
    }
}

/// Both lists as one. The first is not copied: an ACL may have thousands of lines.
fn joined(mut old: Vec<String>, new: Vec<String>) -> Vec<String> {
    old.extend(new);
    old
}

/// How the values of an ACL are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Matching {
    Exact,
    End,
    Found,
}

fn parse_test(words: &[String]) -> AclTest {
    let Some((expression, rest)) = words.split_first() else {
        return AclTest::Unknown("it tests nothing");
    };
    let mut converters = expression.split(','); // the first part is the fetch
    let mut fetch = converters.next().unwrap_or_default();
    if converters.any(|converter| converter != "lower") {
        return AclTest::Unknown("converters other than `lower` cannot be carried over");
    }
    let mut matching = Matching::Exact;
    if let Some(name) = fetch.strip_suffix("_end") {
        (fetch, matching) = (name, Matching::End);
    }
    let mut values = Vec::new();
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-i" | "-n" | "--" => {}
            "-m" => match rest.next().map(String::as_str) {
                Some("str" | "ip") => {}
                Some("end") => matching = Matching::End,
                Some("found") => matching = Matching::Found,
                Some("reg") => return AclTest::Unknown("regular expressions cannot be carried over"),
                _ => return AclTest::Unknown("only -m str, -m ip, -m end and -m found can be carried over"),
            },
            "-f" => return AclTest::Unknown("write the entries of the file here"),
            _ => values.push(word.as_str()),
        }
    }
    let is_exact = matching == Matching::Exact;
    match fetch.to_ascii_lowercase().as_str() {
        "req.ssl_sni" | "req_ssl_sni" | "ssl_fc_sni" => sni_test(&values, matching),
        "req.ssl_alpn" | "ssl_fc_alpn"
            if is_exact && !values.is_empty() && values.iter().all(|value| is_protocol(value)) =>
        {
            AclTest::Alpn(values.iter().map(|value| (*value).to_owned()).collect())
        }
        "src" if is_exact && !values.is_empty() => {
            let networks: Option<Vec<String>> = values.iter().map(|value| network(value)).collect();
            networks.map_or(AclTest::Unknown("a value is not a network"), AclTest::Networks)
        }
        "req.ssl_hello_type" | "req_ssl_hello_type" if is_exact => match values[..] {
            ["1"] | ["eq", "1"] => AclTest::ClientHello,
            _ => AclTest::Unknown("only the type 1 can be carried over"),
        },
        "req.len" | "req_len" if is_exact => match values[..] {
            ["gt", "0"] | ["ge", "1"] | ["1:"] => AclTest::Always,
            _ => AclTest::Unknown("only a length greater than 0 can be carried over"),
        },
        "always_true" if is_exact && values.is_empty() => AclTest::Always,
        _ => AclTest::Unknown("it is no test of the server name, the protocol or the network that can be carried over"),
    }
}

/// The test for these server names.
fn sni_test(values: &[&str], matching: Matching) -> AclTest {
    if matching == Matching::Found {
        return AclTest::Sni {
            names: vec![String::from("*")],
            is_partial: false,
        };
    }
    let patterns = values
        .iter()
        .flat_map(|value| match (matching, value.strip_prefix('.')) {
            (Matching::End, Some(suffix)) => vec![format!("*.{suffix}")],
            (Matching::End, None) => vec![(*value).to_owned(), format!("*.{value}")],
            _ => vec![(*value).to_owned()],
        });
    // Normalized, because names are compared as texts.
    let patterns = patterns.map(|text| NamePattern::from_config(&text).map(|pattern| pattern.to_string()));
    match patterns.collect::<Result<Vec<String>, _>>() {
        Ok(names) if !names.is_empty() => AclTest::Sni {
            is_partial: matching == Matching::End && values.iter().any(|value| !value.starts_with('.')),
            names,
        },
        _ => AclTest::Unknown("a value is missing or not a server name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    fn sni(names: &[&str]) -> AclTest {
        AclTest::Sni {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            is_partial: false,
        }
    }

    #[test]
    fn lines_that_test_different_things_make_an_acl_unknown_and_equal_lines_do_not() {
        let mut acls = Acls::default();
        for line in ["always_true", "always_true"] {
            assert_eq!(acls.add("a", &words(line)), None);
        }
        assert_eq!(acls.0["a"], AclTest::Always);
        acls.add("a", &words("req_ssl_hello_type 1"));
        assert!(matches!(acls.0["a"], AclTest::Unknown(_)));
    }

    #[test]
    fn an_acl_is_parsed_or_unknown() {
        for (text, expected) in [
            ("req.ssl_sni -i A.example b.example", sni(&["a.example", "b.example"])),
            ("req_ssl_sni,lower -m end .a.example", sni(&["*.a.example"])),
            ("req.ssl_sni -m found", sni(&["*"])),
            ("src 10.0.0.1/8", AclTest::Networks(vec![String::from("10.0.0.0/8")])),
            ("req_ssl_hello_type 1", AclTest::ClientHello),
            ("req.len gt 0", AclTest::Always),
            ("always_true", AclTest::Always),
        ] {
            assert_eq!(parse_test(&words(text)), expected, "{text}");
        }
        for text in [
            "",
            "req.ssl_sni",
            "req.ssl_sni -m reg ^a",
            "src -f file",
            "hdr(host) a",
            "req.ssl_sni a!b",
            "req.ssl_hello_type 0",
            "req.ssl_hello_type 1 2",
            "req.ssl_hello_type",
            "req.ssl_ver gt 3",
            "req.len 0",
            "req.len gt 100",
            "req.ssl_alpn -m end h2",
            "always_true 0",
        ] {
            assert!(matches!(parse_test(&words(text)), AclTest::Unknown(_)), "{text}");
        }
    }

    #[test]
    fn end_values_without_a_dot_are_carried_over_in_part() {
        for (text, expected) in [
            ("ssl_fc_sni_end a.example", true),
            ("req.ssl_sni -m end .a.example b.example", true),
            ("req.ssl_sni -m end .a.example", false),
            ("req.ssl_sni a.example", false),
        ] {
            let AclTest::Sni { is_partial, .. } = parse_test(&words(text)) else {
                panic!("{text}");
            };
            assert_eq!(is_partial, expected, "{text}");
        }
    }

    #[test]
    fn conditions_have_alternatives_and_negations() {
        let mut acls = Acls::default();
        acls.add("web", &words("req.ssl_sni a.example"));
        acls.add("web", &words("req.ssl_sni b.example"));
        let found = acls.condition(&words("web !{ src 10.0.0.0/8 } or ! web"));
        let web = sni(&["a.example", "b.example"]);
        let term = |is_negated, test| Term { is_negated, test };
        let network = AclTest::Networks(vec![String::from("10.0.0.0/8")]);
        assert_eq!(
            found,
            [
                vec![term(false, web.clone()), term(true, network)],
                vec![term(true, web.clone())]
            ]
        );
        for text in ["web or", "or web", "web OR || OR", "|| ! or web", "!or !! web"] {
            assert_eq!(acls.condition(&words(text)), [vec![term(false, web.clone())]], "{text}");
        }
        assert!(acls.condition(&words("or !")).is_empty());
        let unknown = acls.condition(&words("other {"));
        assert!(unknown[0].iter().all(|term| matches!(term.test, AclTest::Unknown(_))));
    }
}
