//! Reads Rust as tokens, as far as the rules need it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A token of Rust. Delimiters are tokens, too. Comments are not, but the text of a doc comment is a single token.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut flat = Vec::new();
    flatten(text.parse().unwrap(), &mut flat);
    flat
}

fn flatten(stream: TokenStream, flat: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        let TokenTree::Group(group) = tree else {
            let text = tree.to_string();
            flat.push(Token { text, line });
            continue;
        };
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => unreachable!("only macros make these"),
        };
        flat.push(Token {
            text: open.to_owned(),
            line,
        });
        flatten(group.stream(), flat);
        let line = group.span_close().end().line;
        flat.push(Token {
            text: close.to_owned(),
            line,
        });
    }
}

fn begins_with(code: &[Token], texts: &[&str]) -> bool {
    code.len() >= texts.len() && code.iter().zip(texts).all(|(token, text)| token.text == *text)
}

/// How many tokens an item has: it ends with a `;`, or with the brace that closes its body.
fn item_length(code: &[Token]) -> usize {
    let mut depth = 0;
    for (index, token) in code.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth -= 1,
            "}" if depth == 1 => return index + 1,
            "}" => depth -= 1,
            ";" if depth == 0 => return index + 1,
            _ => {}
        }
    }
    panic!("an item without an end, from line {}", code[0].line);
}

const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

/// For each `#[cfg(test)]` item, the index of its first token and the index after its last.
fn test_items(code: &[Token]) -> Vec<(usize, usize)> {
    let begins = (0..code.len()).filter(|at| begins_with(&code[*at..], &TEST));
    begins
        .map(|at| (at, at + TEST.len() + item_length(&code[at + TEST.len()..])))
        .collect()
}

pub(crate) fn without_tests(code: Vec<Token>) -> Vec<Token> {
    let items = test_items(&code);
    let is_test = |at: usize| items.iter().any(|(begin, end)| (*begin..*end).contains(&at));
    let kept = code.into_iter().enumerate().filter(|(at, _)| !is_test(*at));
    kept.map(|(_, token)| token).collect()
}

pub(crate) fn test_lines(code: &[Token]) -> usize {
    let lines = |(begin, end): &(usize, usize)| code[end - 1].line - code[*begin].line + 1;
    test_items(code).iter().map(lines).sum()
}

/// The first names after a path prefix, such as `["crate"]` for `crate::`, each with the line of the prefix. A longer
/// prefix that ends with this one does not count: `super::super::a` is not a use of `super::a`.
pub(crate) fn names_behind(code: &[Token], prefix: &[&str]) -> Vec<(String, usize)> {
    let prefix: Vec<&str> = prefix.iter().flat_map(|part| [*part, ":", ":"]).collect();
    let mut names = Vec::new();
    for (at, token) in code.iter().enumerate() {
        // Two colons, because a single one may stand before a type: `a: crate::B`.
        let is_longer = at > 1 && code[at - 2..at].iter().all(|before| before.text == ":");
        if is_longer || !begins_with(&code[at..], &prefix) {
            continue;
        }
        let path = &code[at + prefix.len()..];
        names.extend(first_names(path).into_iter().map(|name| (name, token.line)));
    }
    names
}

/// The first name of a path, or of each path of a group.
fn first_names(path: &[Token]) -> Vec<String> {
    if path[0].text != "{" {
        return vec![path[0].text.clone()];
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for (before, token) in path.iter().zip(&path[1..]) {
        match before.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && matches!(before.text.as_str(), "{" | ",") && token.text != "}" {
            names.push(token.text.clone());
        }
    }
    names
}

/// The names that the `use` declarations of a file import from its own `modules`, each with its module.
pub(crate) fn names_from(code: &[Token], modules: &[String]) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for at in 0..code.len() {
        let path = if begins_with(&code[at..], &["use", "self", ":", ":"]) {
            at + 4
        } else if begins_with(&code[at..], &["use"]) {
            at + 1
        } else {
            continue;
        };
        let Some(module) = modules
            .iter()
            .find(|module| begins_with(&code[path..], &[module, ":", ":"]))
        else {
            continue;
        };
        names.extend(
            first_names(&code[path + 3..])
                .into_iter()
                .map(|name| (name, module.clone())),
        );
    }
    names
}

/// Names of the types that a file defines, each with its line: structs, enums, unions and traits, and aliases outside
/// of all braces.
pub(crate) fn types(code: &[Token]) -> Vec<(String, usize)> {
    let mut depth = 0;
    let mut found = Vec::new();
    for pair in code.windows(2) {
        match pair[0].text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "struct" | "enum" | "union" | "trait" if is_name(&pair[1]) => {
                found.push((pair[1].text.clone(), pair[1].line))
            }
            "type" if depth == 0 => found.push((pair[1].text.clone(), pair[1].line)),
            _ => {}
        }
    }
    found
}

fn is_name(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Functions that have a body, and how many lines they take from `fn` to the last brace.
pub(crate) fn functions(code: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, pair) in code.windows(2).enumerate() {
        let (keyword, name) = (&pair[0], &pair[1]);
        if keyword.text != "fn" || !is_name(name) {
            continue;
        }
        let last = &code[at + item_length(&code[at..]) - 1];
        if last.text == "}" {
            found.push((name.text.clone(), last.line - keyword.line + 1));
        }
    }
    found
}

/// The line of the first log field that is formatted with Debug: `?name` or `name = ?value`.
pub(crate) fn debug_field(code: &[Token]) -> Option<usize> {
    let is_field = |pair: &&[Token]| matches!(pair[0].text.as_str(), "(" | "," | "=") && pair[1].text == "?";
    code.windows(2).find(is_field).map(|pair| pair[1].line)
}

/// The first sign of unfinished work, and its line.
pub(crate) fn half_done(code: &[Token]) -> Option<(&'static str, usize)> {
    const SIGNS: [(&str, &[&str]); 4] = [
        ("ignored test", &["#", "[", "ignore"]),
        ("todo!", &["todo", "!"]),
        ("unimplemented!", &["unimplemented", "!"]),
        ("dbg!", &["dbg", "!"]),
    ];
    let here = |at: usize| SIGNS.iter().find(|(_, sign)| begins_with(&code[at..], sign));
    (0..code.len()).find_map(|at| here(at).map(|(what, _)| (*what, code[at].line)))
}

/// The modules that a file declares and other files contain, in the order of the declarations.
pub(crate) fn modules(code: &[Token]) -> Vec<String> {
    let declared = code
        .windows(3)
        .filter(|three| three[0].text == "mod" && three[2].text == ";");
    declared.map(|three| three[1].text.clone()).collect()
}
