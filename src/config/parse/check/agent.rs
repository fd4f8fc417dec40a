//! The keys of `check = "agent"`.

use std::sync::Arc;

use super::reader::KindReader;
use super::send_expect::bytes_to_send;
use super::tls::optional_tls;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::agent::{AgentCheck, KIND};

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    // The value of `port` is read with the keys that all kinds of checks have.
    section.required("port", "the port of the agent, as in port = 9999", problems);
    let send = section.get("send").and_then(|node| bytes_to_send(node, problems));
    Arc::new(AgentCheck {
        send: send.unwrap_or_default(),
        tls: optional_tls(section, problems),
    })
}
