//! The README and the guides are accurate: their configurations load, and their links lead somewhere. The examples of
//! `acequia check` and `acequia route` in the README print what they show. `conf/minimal.toml` and the configurations
//! for Debian and Kubernetes pass `acequia check`.

use std::collections::HashSet;
use std::fs;
use std::iter;
use std::path::Path;
use std::process::Command;

use crate::support::database::{Postgres, psql};
use crate::support::eventually;
use crate::support::process::must;
use crate::support::proxy::Proxy;
use acequia::config;

const README: &str = include_str!("../../../README.md");

/// The guides to which the README refers, each with its name in `docs`.
const GUIDES: [(&str, &str); 11] = [
    ("api.md", include_str!("../../../docs/api.md")),
    ("checks.md", include_str!("../../../docs/checks.md")),
    ("coming-from.md", include_str!("../../../docs/coming-from.md")),
    ("databases.md", include_str!("../../../docs/databases.md")),
    ("fleet.md", include_str!("../../../docs/fleet.md")),
    ("limits.md", include_str!("../../../docs/limits.md")),
    ("metrics.md", include_str!("../../../docs/metrics.md")),
    ("operation.md", include_str!("../../../docs/operation.md")),
    ("routing.md", include_str!("../../../docs/routing.md")),
    ("servers.md", include_str!("../../../docs/servers.md")),
    ("tls.md", include_str!("../../../docs/tls.md")),
];

/// The code blocks of a text that are in this language.
fn blocks(text: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    let after = text.split(&fence).skip(1);
    after.map(|rest| rest.split_once("```").unwrap().0).collect()
}

/// The whole configurations, each with the file name from its first line. A block without a file name is a part
/// of a configuration, and left out.
pub(super) fn configurations() -> Vec<(&'static str, &'static str)> {
    let named = |text: &'static str| {
        let name = text.lines().next().unwrap().strip_prefix("# ")?;
        name.ends_with(".toml").then_some((name, text))
    };
    let texts = iter::once(README).chain(GUIDES.map(|(_, text)| text));
    texts.flat_map(|text| blocks(text, "toml")).filter_map(named).collect()
}

#[test]
fn configurations_of_the_readme_and_the_guides_load_without_mistake_or_warning() {
    assert!(configurations().len() >= 20, "{}", configurations().len());
    for (name, text) in configurations() {
        let loaded = config::read(name, text).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

/// The commands of a block (lines that begin with `$ `), each with its output.
fn examples(block: &str) -> Vec<(String, String)> {
    let mut examples: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match line.strip_prefix("$ ") {
            Some(command) => examples.push((command.to_owned(), String::new())),
            None => {
                let (_, output) = examples.last_mut().expect("an example begins with its command");
                output.push_str(line);
                output.push('\n');
            }
        }
    }
    examples
}

/// Whether the test can run the command: it is `acequia check`, `acequia route` or sed, and needs no server.
fn can_be_run(command: &str) -> bool {
    let starts = ["acequia check ", "acequia route ", "sed "];
    starts.iter().any(|start| command.starts_with(start)) && !command.contains("--live")
}

#[test]
fn readme_examples_of_check_and_route_print_the_shown_output() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in configurations() {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let mut commands_run = 0;
    let blocks = blocks(README, "console");
    for (command, expected) in blocks
        .iter()
        .flat_map(|block| examples(block))
        .filter(|(c, _)| can_be_run(c))
    {
        assert_eq!(run(&command, directory.path()), expected, "{command}");
        commands_run += 1;
    }
    assert!(commands_run >= 4, "{commands_run}");
}

#[test]
fn minimal_toml_passes_check() {
    let output = run(
        "acequia check -c conf/minimal.toml",
        Path::new(env!("CARGO_MANIFEST_DIR")),
    );
    assert_eq!(output, "conf/minimal.toml: 1 listener, 1 pool, 2 servers: fine\n");
}

#[test]
fn the_configurations_of_the_package_and_of_kubernetes_pass_check() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = tempfile::tempdir().unwrap();
    let manifests = fs::read_to_string(root.join("conf/kubernetes/acequia.yaml")).unwrap();
    let inside = manifests.split("acequia.toml: |\n").nth(1).unwrap();
    let indented = inside
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with("    "));
    let text: String = indented.map(|line| format!("{}\n", line.trim_start())).collect();
    fs::write(directory.path().join("kubernetes.toml"), text).unwrap();
    fs::copy(
        root.join("conf/debian/acequia.toml"),
        directory.path().join("debian.toml"),
    )
    .unwrap();
    for name in ["kubernetes.toml", "debian.toml"] {
        // The directories of the package are not on this machine.
        let output = run(&format!("acequia check --without-files -c {name}"), directory.path());
        assert_eq!(output, format!("{name}: 1 listener, 1 pool, 1 server: fine\n"));
    }
}

/// The output of a command: both streams, as a terminal would show them.
fn run(command: &str, directory: &Path) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_acequia")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1; {command}")]);
    let output = shell.env("PATH", path).current_dir(directory).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn links_of_the_readme_and_the_guides_lead_to_files_and_headings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guides = GUIDES.map(|(name, text)| (root.join("docs").join(name), text));
    let texts = iter::once((root.join("README.md"), README)).chain(guides);
    let mut links_found = 0;
    for (path, text) in texts {
        for link in links(text).filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            assert!(target.exists(), "{}: {link}", path.display());
            if !heading.is_empty() {
                let anchors = anchors(&fs::read_to_string(&target).unwrap());
                assert!(anchors.contains(heading), "{}: {link}", path.display());
            }
            links_found += 1;
        }
    }
    assert!(links_found >= 50, "{links_found}");
}

fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0)
}

/// The anchors of the headings of a text, as GitHub makes them: in lower case, without punctuation, with hyphens for
/// spaces.
fn anchors(text: &str) -> HashSet<String> {
    let mut is_code = false;
    let mut anchors = HashSet::new();
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if is_code || heading.len() == line.len() {
            continue;
        }
        let kept = heading
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
        anchors.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
    }
    anchors
}

/// The README's configuration for a primary and its replicas works with new servers of PostgreSQL, on which only the
/// database role of the README was created.
#[test]
fn readme_replication_example_finds_the_primary_and_the_replica() {
    let primary = Postgres::start();
    let [create_role] = blocks(README, "sql")[..] else {
        panic!("expected one block of SQL")
    };
    must(&mut psql(primary.address(), create_role));
    let password = create_role.split('\'').nth(1).unwrap();
    let replica = Postgres::replica_of(&primary);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("postgres.password");
    fs::write(&file, format!("{password}\n")).unwrap();
    let configurations = configurations();
    let (_, text) = configurations
        .iter()
        .find(|(name, _)| *name == "replication.toml")
        .unwrap();
    let text = [
        ("127.0.0.1:6432", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:6433", "127.0.0.1:0".to_owned()),
        ("/var/lib/acequia", directory.path().display().to_string()),
        ("127.0.0.1:5432", replica.address().to_string()),
        ("127.0.0.1:5433", primary.address().to_string()),
        ("/etc/acequia/postgres.password", file.display().to_string()),
    ]
    .iter()
    .fold((*text).to_owned(), |text, (written, here)| text.replace(written, here));
    let proxy = Proxy::start(&text);
    for (listener, pool, server) in [("write", "primary", &primary), ("read", "replicas", &replica)] {
        let address = server.address().to_string();
        eventually("the server of this role is usable", || {
            let of_server = [("pool", pool), ("server", &address)];
            proxy.metrics().sum("acequia_server_usable", &of_server) == 1.0
        });
        let port = must(&mut psql(proxy.at(listener), "SELECT inet_server_port()"));
        assert_eq!(port.trim(), server.address().port().to_string());
    }
    let replica = replica.address().to_string();
    eventually(
        "the pool of the primary checks the replica, too, and refuses it",
        || proxy.server("primary", &replica)["reason"] == "the server is a replica, a primary is required",
    );
}
