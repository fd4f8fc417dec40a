//! A release does not contain the directories in which it was built.

use std::path::Path;
use std::process::Command;

use crate::support::process::must;

/// Compiles, as cargo would, a program that contains a panic. Its source file is in the registry below `cargo_home`.
fn built(cargo_home: &Path, opt_level: &str) -> Vec<u8> {
    let source = cargo_home.join("registry/main.rs");
    std::fs::create_dir_all(source.parent().unwrap()).unwrap();
    std::fs::write(&source, "fn main() { panic!() }").unwrap();
    let binary = cargo_home.join("main");
    let wrapper = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rustc");
    must(
        Command::new(wrapper)
            .args(["rustc", "-C", opt_level, "-o"])
            .args([&binary, &source])
            .env("CARGO_HOME", cargo_home),
    );
    std::fs::read(binary).unwrap()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn optimized_code_does_not_contain_its_source_directory() {
    let directory = tempfile::tempdir().unwrap();
    let optimized = built(directory.path(), "opt-level=3");
    assert!(has(&optimized, "/cargo/registry/main.rs")); // `/cargo` stands for the directory of cargo
    assert!(!has(&optimized, directory.path().to_str().unwrap()));
    let unoptimized = built(directory.path(), "opt-level=0");
    assert!(
        has(&unoptimized, directory.path().to_str().unwrap()),
        "expected the source directory, for a debugger"
    );
}

#[test]
fn cargo_builds_through_scripts_rustc() {
    let config = include_str!("../../../.cargo/config.toml");
    assert!(config.contains("rustc-wrapper = \"scripts/rustc\""), "{config}");
}
