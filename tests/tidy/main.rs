//! Rules for the source code: for example, imports point one way, and files and functions stay short.
#![allow(clippy::unwrap_used)] // clippy.toml allows it in tests, but not in shared helpers

mod directories;
mod scanner;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use scanner::{debug_field, functions, half_done, modules, names_behind, test_lines, tokens, types, without_tests};

/// The longest file under `src`, without its inline tests. Lower this when possible; never raise it above 400.
const FILE_LINES_MAX: usize = 383;

/// The longest file under `src` with its inline tests; a longer one gets a file of tests beside it.
const FILE_LINES_WITH_TESTS_MAX: usize = 400;

/// The longest function under `src`, without tests. Lower this when possible; never raise it above 75.
const FUNCTION_LINES_MAX: usize = 60;

/// The only files with unsafe code. Each gives its reason at its `allow(unsafe_code)`.
const UNSAFE_FILES: [&str; 7] = [
    "src/app/allocator.rs",
    "src/command/descriptors.rs",
    "src/dial/late_port.rs",
    "src/listen/passed.rs",
    "src/readiness.rs",
    "src/tcp_info.rs",
    "src/unix_socket/credentials.rs",
];

#[test]
fn modules_import_only_modules_above_them() {
    let order = modules(&tokens(&read("src/lib.rs")));
    assert!(order.len() > 15, "{order:?}");
    for path in files("src") {
        let importer = module_of(&path);
        let position = |name: &str| order.iter().position(|module| module == name);
        let Some(importer_position) = position(&importer) else {
            continue; // lib.rs and main.rs
        };
        let code = without_tests(tokens(&read(&path)));
        for (imported, line) in names_behind(&code, &["crate"]) {
            let imported_position = position(&imported);
            let imported_position =
                imported_position.unwrap_or_else(|| panic!("{path}:{line}: no module `{imported}` in lib.rs"));
            assert!(
                imported_position <= importer_position,
                "{path}:{line}: `{importer}` stands above `{imported}` in lib.rs"
            );
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
fn files_with_their_tests_stay_short() {
    for path in files("src") {
        let lines = read(&path).lines().count();
        assert!(
            lines <= FILE_LINES_WITH_TESTS_MAX,
            "{path} has {lines} lines: move its tests to a file of their own, or split it"
        );
    }
}

#[test]
fn a_type_name_is_defined_once() {
    let mut places = BTreeMap::<String, Vec<String>>::new();
    for path in files("src") {
        for (name, line) in types(&without_tests(tokens(&read(&path)))) {
            places.entry(name).or_default().push(format!("{path}:{line}"));
        }
    }
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "one name, one thing: {places:#?}");
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

/// The width is that of rustfmt.toml, but rustfmt does not wrap comments.
#[test]
fn lines_of_comments_are_at_most_120_columns_wide() {
    for directory in ["src", "tests", "benches"] {
        for path in files_and_tests(directory) {
            for (at, line) in read(&path).lines().enumerate() {
                let is_comment = line.trim_start().starts_with("//");
                let columns = line.chars().count();
                assert!(!is_comment || columns <= 120, "{path}:{}: {columns} columns", at + 1);
            }
        }
    }
}

#[test]
fn unsafe_code_is_only_in_listed_files() {
    let is_unsafe = |path: &String| tokens(&read(path)).iter().any(|token| token.text == "unsafe");
    let found: Vec<String> = files("src").into_iter().filter(is_unsafe).collect();
    assert_eq!(found, UNSAFE_FILES);
}

#[test]
fn no_todo_debug_code_or_ignored_test_is_left() {
    for directory in ["src", "tests", "benches"] {
        for path in files_and_tests(directory) {
            if let Some((what, line)) = half_done(&tokens(&read(&path))) {
                panic!("{path}:{line}: {what}");
            }
        }
    }
}

#[test]
fn no_merge_conflict_is_left_in_texts() {
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let texts = docs.filter(|path| path.extension().is_some_and(|end| end == "md"));
    for path in texts.chain(["README.md", "CHANGELOG.md", "conf/full.toml"].map(Into::into)) {
        let text = fs::read_to_string(&path).unwrap();
        let mark = text
            .lines()
            .find(|line| line.starts_with("<<<<<<<") || line.starts_with(">>>>>>>"));
        assert_eq!(mark, None, "{}: a merge is not resolved", path.display());
    }
}

#[test]
fn no_log_field_is_formatted_with_debug() {
    for path in files("src") {
        let line = debug_field(&tokens(&read(&path)));
        assert_eq!(line, None, "{path}: Debug writes `Some(600s)` and `[]`: write words");
    }
}

#[test]
fn every_file_but_those_of_tests_starts_with_a_doc_comment() {
    for path in files("src") {
        assert!(read(&path).starts_with("//! "), "{path}");
    }
}

/// Finds in a text what the rules above look for, so that a scanner that finds nothing is noticed.
#[test]
fn the_scanner_finds_its_patterns() {
    let code = tokens(
        r#"
        //! crate::doc is not an import
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
        fn last(at: crate::units::Unit) { dbg!(1) }
        "#,
    );
    assert_eq!(test_lines(&code), 5);
    let code = without_tests(code);
    let names: Vec<_> = names_behind(&code, &["crate"])
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["addr", "name", "pool", "route", "units"]);
    assert_eq!(types(&code), [("T".to_owned(), 6)]);
    let expected = [("short", 1), ("long", 5), ("last", 1)];
    assert_eq!(functions(&code), expected.map(|(name, lines)| (name.to_owned(), lines)));
    assert_eq!(half_done(&code), Some(("dbg!", 19)));
    assert_eq!(
        half_done(&tokens("#[test]\n# [ignore = \"why\"]\nfn f() {}")),
        Some(("ignored test", 2))
    );
    assert_eq!(debug_field(&tokens("fn f<T: ?Sized>() { g()?; (h()?, 1) }")), None);
    for field in ["info!(?a, \"b\")", "info!(a,\n ?b)", "info!(a = ?b)"] {
        assert!(debug_field(&tokens(field)).is_some(), "{field}");
    }
    assert_eq!(modules(&tokens("pub mod a;\nmod b;\n//! mod c;\nmod d {}")), ["a", "b"]);
}

/// `route` for `src/route.rs` and for `src/route/explain.rs`.
fn module_of(path: &str) -> String {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    inside.split('/').next().unwrap().to_owned()
}

/// The Rust files below a directory, sorted, without files of tests.
fn files(directory: &str) -> Vec<String> {
    let is_test = |path: &String| path.ends_with("/tests.rs") || path.contains("/tests/");
    let mut names = files_and_tests(directory);
    names.retain(|path| !is_test(path));
    names
}

/// The Rust files below a directory, sorted.
fn files_and_tests(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    gather(&root().join(directory), &mut found);
    let names = found
        .iter()
        .map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    let mut names: Vec<_> = names.collect();
    assert!(!names.is_empty(), "nothing in {directory}");
    names.sort();
    names
}

fn gather(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
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
