//! `accept_proxy` of a listener.

use super::list::entries;
use super::{Problems, Section, address, value};
use crate::config::keys;
use crate::plan::AcceptProxy;

/// The entry of `from` for peers on the Unix sockets of the listener.
const UNIX: &str = "unix";

const OTHERS: [(&str, bool); 2] = [("serve", false), ("refuse", true)];

/// Converts `accept_proxy`; `None`: the listener has none.
pub(super) fn accept_proxy(listener: &Section<'_>, problems: &mut Problems<'_>) -> Option<AcceptProxy> {
    let (position, node) = listener.entry("accept_proxy")?;
    let section = Section::open(node, position, &keys::ACCEPT_PROXY, problems)?;
    section.required("from", r#"from = ["10.0.0.0/24"]: the balancers in front"#, problems);
    let from = entries(&section, "from", problems, |text| match text {
        UNIX => Ok(None),
        network => address::network(network).map(Some),
    });
    if from.iter().flatten().any(|network| network.prefix_len() == 0) {
        let message = "`from` trusts everybody: each client may claim to be any other";
        problems.warning(position, message, "list the balancers in front");
    }
    let required = section.get("require");
    Some(AcceptProxy {
        trusts_unix: from.contains(&None),
        from: from.into_iter().flatten().collect(),
        is_required: required.and_then(|node| value::boolean(node, problems)).unwrap_or(true),
        refuses_others: section.one_of("others", &OTHERS, problems).unwrap_or(false),
    })
}
