//! Order inside directories: a module uses only those modules of its directory that are declared above it, so no two
//! use each other.

use std::collections::{BTreeMap, BTreeSet};

use super::scanner::{modules, names_behind, names_from, tokens, without_tests};
use super::{files, read};

/// A directory of modules, and the file that declares them.
struct Directory {
    /// For example `src/pool`.
    path: String,
    /// The modules in the order in which the file declares them, without those of tests.
    modules: Vec<String>,
    /// The names that the file imports from these modules, each with its module.
    imports: BTreeMap<String, String>,
}

#[test]
fn modules_of_a_directory_use_only_those_declared_above_them() {
    let mut wrong = Vec::new();
    for directory in directories() {
        for (user, used) in directory.uses() {
            let place = |module: &str| directory.modules.iter().position(|listed| listed == module);
            if place(&used) > place(&user) {
                wrong.push(format!(
                    "{}: `{user}` uses `{used}`, which is declared below it",
                    directory.path
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn directories() -> Vec<Directory> {
    let mut found = Vec::new();
    for file in files("src") {
        let code = without_tests(tokens(&read(&file)));
        let modules = modules(&code);
        let is_root = ["src/lib.rs", "src/main.rs"].contains(&file.as_str());
        if is_root || modules.is_empty() {
            continue;
        }
        let path = file.strip_suffix("/mod.rs").or(file.strip_suffix(".rs")).unwrap();
        found.push(Directory {
            path: path.to_owned(),
            imports: names_from(&code, &modules).into_iter().collect(),
            modules,
        });
    }
    assert!(found.len() > 10, "{} directories", found.len());
    found
}

impl Directory {
    /// The pairs of a module and another one that it uses.
    fn uses(&self) -> BTreeSet<(String, String)> {
        let mut uses = BTreeSet::new();
        for module in &self.modules {
            for file in self.files_of(module) {
                let used = self.used_by(&file).into_iter().filter(|used| used != module);
                uses.extend(used.map(|used| (module.clone(), used)));
            }
        }
        uses
    }

    /// The file of a module, and those of its own modules.
    fn files_of(&self, module: &str) -> Vec<String> {
        let own = format!("{}/{module}.rs", self.path);
        let below = format!("{}/{module}/", self.path);
        files("src")
            .into_iter()
            .filter(|file| *file == own || file.starts_with(&below))
            .collect()
    }

    /// The modules of this directory that a file inside it uses.
    fn used_by(&self, file: &str) -> Vec<String> {
        let code = without_tests(tokens(&read(file)));
        let inside = file.strip_prefix(&self.path).unwrap().trim_start_matches('/');
        let depth = inside.trim_end_matches("/mod.rs").matches('/').count();
        let relative = vec!["super"; depth + 1];
        let absolute: Vec<&str> = std::iter::once("crate").chain(self.path.split('/').skip(1)).collect();
        let mut names = names_behind(&code, &relative);
        names.extend(names_behind(&code, &absolute));
        let original = |name: String| self.imports.get(&name).cloned().unwrap_or(name);
        let used = names.into_iter().map(|(name, _)| original(name));
        used.filter(|name| self.modules.contains(name)).collect()
    }
}
