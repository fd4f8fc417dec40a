//! The samples of guards. Each rendering reads them from the guards, so a removed guard has no samples.

use std::sync::Arc;

use super::exposition::{MetricType, format_labels, write_header, write_sample};
use super::names;
use crate::guard::{Guard, GuardReason};

/// Counts of a guard, by reason.
type Counts = [(GuardReason, u64); GuardReason::ALL.len()];

/// Writes the samples of all guards; nothing if there are none.
pub(super) fn write_guards(guards: &[Arc<Guard>], text: &mut String) {
    if guards.is_empty() {
        return;
    }
    let write_by_reason = |text: &mut String, name, help, counts: fn(&Guard) -> Counts| {
        write_header(text, name, MetricType::Counter, help);
        for guard in guards {
            for (reason, count) in counts(guard) {
                let labels = format_labels(&[("guard", guard.name()), ("reason", reason.as_str())]);
                write_sample(text, name, &labels, count);
            }
        }
    };
    let help = "Clients that a guard has refused, by reason.";
    write_by_reason(text, names::GUARD_REFUSALS, help, Guard::refusals);
    let help = "Clients that a guard with `report_only` would have refused, by reason.";
    write_by_reason(text, names::GUARD_REPORTS, help, Guard::reports);
    let write_one_each = |text: &mut String, name, kind, help, value: fn(&Guard) -> u64| {
        write_header(text, name, kind, help);
        for guard in guards {
            write_sample(text, name, &format_labels(&[("guard", guard.name())]), value(guard));
        }
    };
    let help = "Sources that a guard forgot before their allowance was full again, because it tracked too many.";
    write_one_each(
        text,
        names::GUARD_EVICTIONS,
        MetricType::Counter,
        help,
        Guard::evictions,
    );
    let help = "Current sessions that have passed a guard, without those that only `report_only` let pass.";
    write_one_each(text, names::GUARD_SESSIONS, MetricType::Gauge, help, |guard| {
        guard.sessions() as u64
    });
    let help =
        "Sources of the current sessions that have passed a guard, without those that only `report_only` let pass.";
    write_one_each(text, names::GUARD_SOURCES, MetricType::Gauge, help, |guard| {
        guard.sources() as u64
    });
}
