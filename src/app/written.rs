//! Checks the files and directories that a start writes, without a change to any of them.

use std::path::Path;

use super::acme;
use super::failure::{Failure, cannot_use_state_dir};
use crate::account::access_log::{AccessTarget, Output};
use crate::plan::Plan;
use crate::state_dir::StateDir;

/// The failures that a start would have with `state_dir`, the directories of ACME accounts, and the access log.
/// `created`: the directories that the service manager creates before a start. As long as one of them is missing, paths
/// in it are not checked.
///
/// A full disk is not noticed. A `state_dir` that another process uses is no failure: that process may be the one that
/// already runs with this plan.
pub fn unwritable(plan: &Plan, created: &[&Path]) -> Vec<Failure> {
    let is_checked = |path: &Path| {
        created
            .iter()
            .all(|directory| !path.starts_with(directory) || directory.exists())
    };
    let mut failures = Vec::new();
    if let Some(directory) = plan.state_dir.as_deref().filter(|path| is_checked(path)) {
        failures.extend(StateDir::check(directory).map_err(cannot_use_state_dir).err());
    }
    for account in plan.acme.iter().filter(|account| is_checked(&account.state_dir)) {
        failures.extend(acme::check_directory(&account.state_dir).err());
    }
    if let AccessTarget::File(file) = &plan.log.access
        && is_checked(file)
    {
        failures.extend(Output::check(file).map_err(Failure::access_log).err());
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_missing_directory_that_the_service_manager_creates_is_not_checked() {
        let file = tempfile::NamedTempFile::new().unwrap(); // no directory can be created in it
        let [state, logs] = ["state", "logs"].map(|name| file.path().join(name));
        let text = format!(
            "[runtime]\nstate_dir = {state:?}\n[log]\naccess = {:?}\n[listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n\
             [pools.p]\nservers = [\"127.0.0.1:9\"]\n",
            logs.join("access.log")
        );
        let plan = crate::config::read("a.toml", &text).ok().unwrap().plan;
        for (created, failures) in [
            (&[][..], 2),
            (&[&*state], 1),
            (&[&*state, &*logs], 0),
            (&[file.path()], 2),
        ] {
            assert_eq!(unwritable(&plan, created).len(), failures, "{created:?}");
        }
    }
}
