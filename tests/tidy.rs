//! The house is in order: imports point one way, files and functions stay short, and nothing is left half done.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in what they share

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The longest file under `src`, its tests apart. To be lowered when it can be; never above 400.
const FILE_LINES_MAX: usize = 367;

/// The longest function under `src`, its tests apart. The same; never above 75.
const FUNCTION_LINES_MAX: usize = 60;

/// Where a system call has no safe wrapper.
const UNSAFE_FILES: [&str; 3] = ["src/app/allocator.rs", "src/listen/watch.rs", "src/tcp_info.rs"];

#[test]
fn modules_import_only_what_stands_above_them() {
    let order = modules(&read("src/lib.rs"));
    assert!(order.len() > 15, "{order:?}");
    for path in files("src") {
        let own = module_of(&path);
        let Some(place) = order.iter().position(|module| *module == own) else {
            continue; // lib.rs and main.rs
        };
        let code = without_tests(tokens(&read(&path)));
        for (name, line) in imports(&code) {
            let there = order.iter().position(|module| *module == name);
            let there = there.unwrap_or_else(|| panic!("{path}:{line}: no module `{name}` in lib.rs"));
            assert!(there <= place, "{path}:{line}: `{own}` stands above `{name}` in lib.rs");
        }
    }
}

#[test]
fn files_stay_short() {
    let mut longest = (0, String::new());
    for path in files("src") {
        let text = read(&path);
        let all = tokens(&text);
        let tests = test_lines(&all);
        longest = longest.max((text.lines().count() - tests, path));
    }
    let (lines, path) = longest;
    assert!(lines <= FILE_LINES_MAX.min(400), "{path} has {lines} lines: split it");
}

#[test]
fn functions_stay_short() {
    let mut longest = (0, String::new());
    for path in files("src") {
        for (name, lines) in functions(&without_tests(tokens(&read(&path)))) {
            longest = longest.max((lines, format!("{name} in {path}")));
        }
    }
    let (lines, name) = longest;
    assert!(
        lines <= FUNCTION_LINES_MAX.min(75),
        "{name} has {lines} lines: take it apart"
    );
}

#[test]
fn unsafe_code_is_where_it_is_known_to_be() {
    let is_unsafe = |path: &String| tokens(&read(path)).iter().any(|token| token.text == "unsafe");
    let found: Vec<String> = files("src").into_iter().filter(is_unsafe).collect();
    assert_eq!(found, UNSAFE_FILES);
}

#[test]
fn nothing_is_left_half_done() {
    for folder in ["src", "tests", "benches"] {
        for path in files(folder) {
            if let Some((what, line)) = half_done(&tokens(&read(&path))) {
                panic!("{path}:{line}: {what}");
            }
        }
    }
}

#[test]
fn every_file_begins_by_saying_what_it_is() {
    for path in files("src") {
        assert!(read(&path).starts_with("//! "), "{path}");
    }
}

/// Every rule above is broken once, so that a scanner that sees nothing is seen.
#[test]
fn the_scanner_sees_what_it_looks_for() {
    let code = tokens(
        r#"
        //! crate::doc is no import
        use crate::addr::{Deep, crate_::no};
        use crate::{name, pool::{inner, other}};
        fn short() -> [u8; 1] { "fn text() { crate::text" }
        trait T { fn without_a_body(&self); }
        impl T for u8 {
            fn long<const N: usize>(&self) where [u8; N]: Sized {
                if true {
                    crate::route::go();
                }
            }
        }
        #[cfg(test)]
        mod tests {
            use crate::session;
        }
        #[cfg(test)] mod more;
        fn last() { dbg!(1) }
        "#,
    );
    assert_eq!(test_lines(&code), 5);
    let code = without_tests(code);
    let names: Vec<_> = imports(&code).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["addr", "name", "pool", "route"]);
    let expected = [("short", 1), ("long", 5), ("last", 1)];
    assert_eq!(functions(&code), expected.map(|(name, lines)| (name.to_owned(), lines)));
    assert_eq!(half_done(&code), Some(("dbg!", 19)));
    assert_eq!(
        half_done(&tokens("#[test]\n# [ignore = \"why\"]\nfn f() {}")),
        Some(("ignored test", 2))
    );
    assert_eq!(modules("pub mod a;\nmod b;\n//! mod c;\nmod d {}"), ["a", "b"]);
}

/// A token of Rust; a delimiter is one too. Comments are none.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token> {
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

fn is(code: &[Token], texts: &[&str]) -> bool {
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

/// Where each `#[cfg(test)]` item begins and ends.
fn test_items(code: &[Token]) -> Vec<(usize, usize)> {
    let begins = (0..code.len()).filter(|at| is(&code[*at..], &TEST));
    begins
        .map(|at| (at, at + TEST.len() + item_length(&code[at + TEST.len()..])))
        .collect()
}

fn without_tests(code: Vec<Token>) -> Vec<Token> {
    let items = test_items(&code);
    let is_test = |at: usize| items.iter().any(|(begin, end)| (*begin..*end).contains(&at));
    let kept = code.into_iter().enumerate().filter(|(at, _)| !is_test(*at));
    kept.map(|(_, token)| token).collect()
}

fn test_lines(code: &[Token]) -> usize {
    let lines = |(begin, end): &(usize, usize)| code[end - 1].line - code[*begin].line + 1;
    test_items(code).iter().map(lines).sum()
}

/// The modules that a path from `crate` leads to, each with its line.
fn imports(code: &[Token]) -> Vec<(String, usize)> {
    let mut names = Vec::new();
    for (at, token) in code.iter().enumerate() {
        if !is(&code[at..], &["crate", ":", ":"]) {
            continue;
        }
        let path = &code[at + 3..];
        if path[0].text != "{" {
            names.push((path[0].text.clone(), token.line));
            continue;
        }
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
                names.push((token.text.clone(), token.line));
            }
        }
    }
    names
}

/// Functions that have a body, and how many lines they take from `fn` to the last brace.
fn functions(code: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in code.iter().enumerate() {
        let is_name = |token: &Token| token.text.starts_with(|c: char| c.is_alphabetic() || c == '_');
        let Some(name) = code.get(at + 1).filter(|name| token.text == "fn" && is_name(name)) else {
            continue;
        };
        let last = &code[at + item_length(&code[at..]) - 1];
        if last.text == "}" {
            found.push((name.text.clone(), last.line - token.line + 1));
        }
    }
    found
}

fn half_done(code: &[Token]) -> Option<(&'static str, usize)> {
    const SIGNS: [(&str, &[&str]); 4] = [
        ("ignored test", &["#", "[", "ignore"]),
        ("todo!", &["todo", "!"]),
        ("unimplemented!", &["unimplemented", "!"]),
        ("dbg!", &["dbg", "!"]),
    ];
    let here = |at: usize| SIGNS.iter().find(|(_, sign)| is(&code[at..], sign));
    (0..code.len()).find_map(|at| here(at).map(|(what, _)| (*what, code[at].line)))
}

/// The modules that a file declares, in its order.
fn modules(text: &str) -> Vec<String> {
    let code = tokens(text);
    let declared = code.windows(3).filter(|at| at[0].text == "mod" && at[2].text == ";");
    declared.map(|at| at[1].text.clone()).collect()
}

/// `route` for `src/route.rs` and for `src/route/explain.rs`.
fn module_of(path: &str) -> String {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    inside.split('/').next().unwrap().to_owned()
}

/// Files of Rust below a folder, sorted; of `src` those that are not tests.
fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    gather(&root().join(folder), &mut found);
    let names = found
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    let is_test = |path: &str| folder == "src" && (path.ends_with("/tests.rs") || path.contains("/tests/"));
    let mut names: Vec<String> = names.filter(|path| !is_test(path)).collect();
    assert!(!names.is_empty(), "nothing in {folder}");
    names.sort();
    names
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
