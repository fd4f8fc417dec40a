//! Merges the file of this machine and the texts of the store, if the file has `[remote]`. The file then has only the
//! sections of the process, and the store has all other sections.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use super::file::{KeyValue, Node, Table, Value};
use super::keys;
use super::report::{InputText, Position, Problem};

/// The sections of the process, which are never taken from the store.
const OF_PROCESS: [&str; 5] = ["runtime", "admin", "log", "providers", "remote"];

/// The sections whose keys are names. Several texts may have subsections of such a section, with different names.
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
    // By key, in the order of the texts.
    let mut of_store: BTreeMap<String, Vec<KeyValue>> = BTreeMap::new();
    for entry in tables.flat_map(|table| table.entries) {
        if OF_PROCESS.contains(&&*entry.key) {
            problems.push(Problem::error(
                entry.position,
                format!("`{}` is not taken from the store", entry.key),
                format!("write it in {}, which has [remote]", input.first_name()),
            ));
        } else {
            of_store.entry(entry.key.clone()).or_default().push(entry);
        }
    }
    for (key, entries) in of_store {
        if !keys::FILE.keys.contains(&&*key) {
            root.entries.extend(entries); // each is reported as unknown
        } else if NAMED.contains(&&*key) {
            root.entries.push(merged_by_name(entries, input, &mut problems));
        } else {
            root.entries.push(only_one(entries, input, &mut problems));
        }
    }
    (root, problems)
}

/// The problem of a section beside `[remote]` that belongs in the store; `None`: the section does not belong there.
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

/// The first of these sections, which all have the same key. Reports the others. There is at least one section.
fn only_one(entries: Vec<KeyValue>, input: &InputText, problems: &mut Vec<Problem>) -> KeyValue {
    let mut entries = entries.into_iter();
    let first = entries.next().expect("a key has at least one section");
    problems.extend(entries.map(|second| duplicate(&second.key, &first.position, &second, input)));
    first
}

/// One section with the subsections of these sections, which all have the same key. Reports duplicate subsections. A
/// section that is not a table is returned instead: its wrong type is reported when it is read. There is at least one
/// section.
fn merged_by_name(entries: Vec<KeyValue>, input: &InputText, problems: &mut Vec<Problem>) -> KeyValue {
    let mut first_positions: HashMap<String, Position> = HashMap::new();
    let mut all = Vec::new();
    let mut merged = None;
    for entry in entries {
        let KeyValue { key, position, node } = entry;
        let Value::Table(table) = node.value else {
            return KeyValue { key, position, node };
        };
        for subsection in table.entries {
            match first_positions.entry(subsection.key.clone()) {
                Entry::Occupied(first) => {
                    problems.push(duplicate(
                        &format!("{key}.{}", subsection.key),
                        first.get(),
                        &subsection,
                        input,
                    ));
                }
                Entry::Vacant(free) => {
                    free.insert(subsection.position.clone());
                    all.push(subsection);
                }
            }
        }
        merged.get_or_insert((key, position, node.position));
    }
    let (key, position, value_position) = merged.expect("a key has at least one section");
    let node = Node {
        position: value_position,
        value: Value::Table(Table { entries: all }),
    };
    KeyValue { key, position, node }
}

/// The problem of a section that is in two texts.
fn duplicate(name: &str, first: &Position, second: &KeyValue, input: &InputText) -> Problem {
    let message = format!("`[{name}]` is in two keys of the store");
    let hint = format!("first on {}: keep one", input.describe_position(first));
    Problem::error(second.position.clone(), message, hint)
}
