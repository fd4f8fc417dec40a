//! Which section is in which text. If the file of this machine has `[remote]`, the sections of the process are in it,
//! and all others are in the texts of the store.

use super::file::{KeyValue, Table, Value};
use super::keys;
use super::report::{InputText, Problem};

/// The sections of a file with `[remote]`.
const OF_PROCESS: [&str; 5] = ["runtime", "admin", "log", "providers", "remote"];

/// The sections whose keys are names. Several texts may have such a section, each with other names.
const NAMED: [&str; 4] = ["acme", "guards", "listeners", "pools"];

/// The sections of all texts as one table, and the problems of sections that are in the wrong text or in two texts. The
/// first of `tables` is that of the file of this machine, the others are those of the store.
pub(super) fn merged(input: &InputText, tables: Vec<Table>) -> (Table, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut tables = tables.into_iter();
    let mut root = tables.next().unwrap_or_default();
    if root.entries.iter().any(|entry| entry.key == "remote") {
        problems.extend(root.entries.iter().filter_map(beside_remote));
    }
    for entry in tables.flat_map(|table| table.entries) {
        if OF_PROCESS.contains(&&*entry.key) {
            problems.push(Problem::error(
                entry.position,
                format!("`{}` is not taken from the store", entry.key),
                format!("write it in {}, which has [remote]", input.first_name()),
            ));
        } else {
            merge(&mut root, entry, input, &mut problems);
        }
    }
    (root, problems)
}

/// The problem of a section that is beside `[remote]` and belongs in the store.
fn beside_remote(entry: &KeyValue) -> Option<Problem> {
    let is_misplaced = keys::FILE.keys.contains(&&*entry.key) && !OF_PROCESS.contains(&&*entry.key);
    is_misplaced.then(|| {
        Problem::error(
            entry.position.clone(),
            format!("`{}` is beside `[remote]`", entry.key),
            "write it in the store, or remove [remote]",
        )
    })
}

/// Adds a section. If it exists already, adds those of its subsections whose names are new, and reports the others.
fn merge(root: &mut Table, entry: KeyValue, input: &InputText, problems: &mut Vec<Problem>) {
    let Some(existing) = root.entries.iter_mut().find(|existing| existing.key == entry.key) else {
        root.entries.push(entry);
        return;
    };
    let mut report_duplicate = |name: String, first: &KeyValue, second: &KeyValue| {
        let first = input.describe_position(&first.position);
        let message = format!("`[{name}]` is in two keys of the store");
        problems.push(Problem::error(
            second.position.clone(),
            message,
            format!("first on {first}: keep one"),
        ));
    };
    if !NAMED.contains(&&*entry.key) {
        return report_duplicate(entry.key.clone(), existing, &entry);
    }
    let name = entry.key.clone();
    match (&mut existing.node.value, entry.node.value) {
        (Value::Table(sections), Value::Table(further)) => {
            for section in further.entries {
                match sections.entries.iter().find(|first| first.key == section.key) {
                    Some(first) => report_duplicate(format!("{name}.{}", section.key), first, &section),
                    None => sections.entries.push(section),
                }
            }
        }
        // Of a table and another value, the other value stays: its wrong type is reported when the section is read.
        (first, further) if matches!(first, Value::Table(_)) => *first = further,
        _ => {}
    }
}
