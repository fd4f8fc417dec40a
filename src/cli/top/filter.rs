//! The text of a filter, divided into words. A word in double quotes may contain white space.

/// Keys of conditions that the process, not `top`, checks for its sessions, such as `pool` in the filter word
/// `pool=shop`.
const CONDITION_KEYS: [&str; 15] = [
    "id",
    "listener",
    "route",
    "pool",
    "server",
    "sni",
    "peer",
    "client",
    "database",
    "user",
    "min_age",
    "min_idle",
    "min_bytes",
    "min_rate",
    "min_rtt",
];

/// The words of a filter.
pub(super) fn words(filter: &str) -> Vec<String> {
    let mut is_quoted = false;
    let words = filter.split(|c: char| {
        is_quoted ^= c == '"';
        c.is_whitespace() && !is_quoted
    });
    let words = words.map(|word| word.replace('"', ""));
    words.filter(|word| !word.is_empty()).collect()
}

/// Divides a filter of sessions into conditions for the process, and words that are looked for in the rows.
pub(super) fn conditions_and_words(filter: &str) -> (Vec<(String, String)>, Vec<String>) {
    let (mut conditions, mut rest) = (Vec::new(), Vec::new());
    for word in words(filter) {
        match word.split_once('=') {
            Some((key, value)) if CONDITION_KEYS.contains(&key) => conditions.push((key.to_owned(), value.to_owned())),
            _ => rest.push(word),
        }
    }
    (conditions, rest)
}

/// A condition as it is written in a filter.
pub(super) fn condition(key: &str, value: &str) -> String {
    if value.contains(char::is_whitespace) {
        format!("{key}=\"{value}\"")
    } else {
        format!("{key}={value}")
    }
}

/// Whether the text contains each of these words. Upper and lower case are the same.
pub(super) fn contains_all(text: &str, words: &[String]) -> bool {
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(&word.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_word_keeps_its_spaces() {
        let server = condition("server", "unix:/run/my db.sock");
        let (conditions, words) =
            conditions_and_words(&format!("{} {server} \"a b\" x=y  c\"", condition("pool", "p")));
        let expected = [("pool", "p"), ("server", "unix:/run/my db.sock")];
        assert_eq!(
            conditions,
            expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert_eq!(words, ["a b", "x=y", "c"]);
        assert!(contains_all("y A B", &super::words("\"a b\" Y")));
        assert!(!contains_all("b y a", &super::words("\"a b\" y")));
    }
}
