//! `accept_proxy` of a listener.

use super::list::entries;
use super::{Problems, Section, address};
use crate::addr::ListenAddr;
use crate::config::keys;
use crate::guard::NetworkSet;
use crate::plan::AcceptProxy;

/// The entry of `from` for peers on the Unix sockets of the listener.
const UNIX: &str = "unix";

/// The values of `others`, each with its value of [`AcceptProxy::refuses_others`].
const OTHERS: [(&str, bool); 2] = [("serve", false), ("refuse", true)];

/// Converts `accept_proxy`; `None`: the listener has none, or its value is not a table.
pub(super) fn accept_proxy(
    listener: &Section<'_>,
    bind: &[ListenAddr],
    problems: &mut Problems<'_>,
) -> Option<AcceptProxy> {
    let (position, node) = listener.entry("accept_proxy")?;
    let section = Section::open(node, position, &keys::ACCEPT_PROXY, problems)?;
    section.required("from", r#"from = ["10.0.0.0/24"]: the balancers in front"#, problems);
    // `None` stands for the Unix sockets.
    let from = entries(&section, "from", problems, |text| match text {
        UNIX => Ok(None),
        network => address::network(network).map(Some),
    });
    let trusts_unix = from.contains(&None);
    let from: NetworkSet = from.into_iter().flatten().collect();
    if from.has_all_of_a_family() {
        let message = "`from` trusts everybody of an address family: each of these clients may claim to be any other";
        problems.warning(position, message, "list the balancers in front");
    }
    if trusts_unix && !bind.iter().any(|address| address.unix().is_some()) {
        let message = "`from` lists \"unix\", but the listener has no Unix socket";
        problems.warning(
            position,
            message,
            r#"add "unix:/run/NAME.sock" to `bind`, or remove "unix" from `from`"#,
        );
    }
    Some(AcceptProxy {
        trusts_unix,
        from,
        is_required: section.boolean("require", problems).unwrap_or(true),
        refuses_others: section.one_of("others", &OTHERS, problems).unwrap_or(false),
    })
}
