//! The summary of a run, as tables.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};

use crate::kinds::KINDS;
use crate::verdict::Evidence;

pub fn print(evidence: &Evidence) {
    let mut endings = BTreeMap::<&str, BTreeMap<&str, u64>>::new();
    for line in &evidence.lines {
        let record = line.session.and_then(|session| evidence.records.get(&session));
        if let Some((kind, _)) = record.and_then(|record| record.client) {
            *endings.entry(kind).or_default().entry(&line.ending).or_default() += 1;
        }
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["kind", "clients", "endings in the log"]);
    for kind in KINDS {
        let is_of_kind = |record: &&crate::records::Record| record.client.is_some_and(|(name, _)| name == kind.name);
        let clients = evidence.records.values().filter(is_of_kind).count();
        table.add_row([
            kind.name.to_owned(),
            clients.to_string(),
            endings_text(endings.get(kind.name)),
        ]);
    }
    println!("{table}");
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["meanwhile", "times"]);
    for (what, times) in &evidence.operator_work.counts {
        table.add_row([(*what).to_owned(), times.to_string()]);
    }
    table.add_row([
        "servers dying and returning".to_owned(),
        evidence.outcome.deaths.to_string(),
    ]);
    println!("{table}");
    print_sums(evidence);
}

fn endings_text(endings: Option<&BTreeMap<&str, u64>>) -> String {
    let text = |(ending, times): (&&str, &u64)| format!("{ending} {times}");
    endings.into_iter().flatten().map(text).collect::<Vec<_>>().join(", ")
}

fn print_sums(evidence: &Evidence) {
    let bytes = |of: fn(&crate::access::Line) -> u64| evidence.lines.iter().map(of).sum::<u64>();
    let (early, late) = evidence.memory();
    println!(
        "{} clients, {} sessions: {} lines in the access log, {} dropped, {} sessions without a line",
        evidence.outcome.clients,
        evidence.connections(),
        evidence.lines.len(),
        evidence.metrics.sum("acequia_log_lines_dropped_total", &[]),
        evidence.sessions_without_line(),
    );
    println!(
        "{} bytes up, {} bytes down",
        bytes(|line| line.up),
        bytes(|line| line.down)
    );
    println!(
        "resident memory: {early} KiB after the warm-up, {late} KiB at the end, {} KiB when quiet",
        evidence.after.rss_kib
    );
    println!("before: {:?}\nafter:  {:?}", evidence.before, evidence.after);
    println!(
        "diagnostic log: {} lines of at most {}",
        evidence.log.len(),
        evidence.log_lines_max()
    );
}
