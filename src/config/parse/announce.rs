//! `announce` of a listener.

use std::sync::Arc;

use super::list::entries;
use super::route::{ListenerKind, pattern};
use super::{Names, Problems, Section};
use crate::config::keys;
use crate::plan::{AnnouncePlan, Protocol};
use crate::route::TlsMode;

/// Converts `announce`, and reports its problems. `None`: the key is missing, or its value is no table.
pub(super) fn announce(
    listener: &Section<'_>,
    names: &Names<'_, '_>,
    kind: ListenerKind,
    problems: &mut Problems<'_>,
) -> Option<AnnouncePlan> {
    let (position, node) = listener.entry("announce")?;
    let section = Section::open(node, position, &keys::ANNOUNCE, problems)?;
    section.required("from", r#"from = "docker""#, problems);
    section.one_of("from", &[("docker", ())], problems);
    section.required("names", r#"names = ["*.apps.example.com"]"#, problems);
    if kind.protocol == Protocol::Mysql {
        let hint = "remove `announce`: announced routes match server names";
        problems.error(
            position,
            "MySQL servers send first: no server name can be read before",
            hint,
        );
    }
    if listener.get("redirect").is_some() {
        let hint = "remove one of them";
        problems.error(position, "this listener has both `redirect` and `announce`", hint);
    }
    Some(AnnouncePlan {
        socket: Arc::clone(&names.providers.docker_socket),
        names: entries(&section, "names", problems, pattern),
        tls: if kind.terminates {
            TlsMode::Terminate
        } else {
            TlsMode::Pass
        },
        pool: names.pools.default_plan(names.providers, problems)?,
    })
}
