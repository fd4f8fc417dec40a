//! `allow` and `deny` (ngx_stream_access_module): the first rule that matches decides.

use super::super::imported::{ImportedListener, Remark};
use super::super::networks::without;
use super::block::Directive;
use crate::addr::{NetworkError, parse_network};

pub(super) fn is_rule(directive: &Directive) -> bool {
    matches!(directive.name(), "allow" | "deny")
}

/// A network or an address; bits after the prefix are dropped, as nginx does. `None`: the text is not a network, or
/// is a network of IPv4-mapped addresses. No client matches that: acequia converts the address of a client to IPv4.
pub(super) fn network(text: &str) -> Option<String> {
    match parse_network(text) {
        Ok(_) => Some(text.to_owned()),
        Err(NetworkError::HostBits(_, masked)) => network(&masked.to_string()),
        Err(_) => None,
    }
}

/// Converts the rules of a `server` block. In acequia, `deny` is applied before `allow`, so a network that an earlier
/// rule allows is subtracted from one that is denied. nginx accepts clients that no rule matches, so its `allow` rules
/// become an `allow` of acequia only if `deny all` follows.
///
/// # Errors
/// Why the block cannot be carried over: its listener would be open to clients that nginx refuses.
pub(super) fn read(rules: &[&Directive], listener: &mut ImportedListener) -> Result<(), &'static str> {
    let (mut allow, mut deny): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (index, rule) in rules.iter().enumerate() {
        let text = rule.word(1).unwrap_or_default();
        let is_allow = rule.name() == "allow";
        if text == "all" {
            if !is_allow {
                if allow.is_empty() {
                    return Err("it refuses all clients");
                }
                listener.allow.append(&mut allow);
            }
            for rest in &rules[index + 1..] {
                listener
                    .section
                    .remarks
                    .push(rest.left_out("a rule for `all` comes first"));
            }
            break;
        }
        let Some(network) = network(text) else {
            listener
                .section
                .remarks
                .push(rule.left_out("not a network that can hold a client"));
            continue;
        };
        if is_allow {
            allow.push(network);
        } else if let Some(left) = without(std::slice::from_ref(&network), &allow) {
            deny.extend(left);
        } else {
            // Subtracting the allowed networks would leave too many networks.
            let text = format!("of {network}, addresses that an earlier line allows are denied here, too");
            listener.section.remarks.push(Remark::note(rule.line, text));
            deny.push(network);
        }
    }
    listener.deny.append(&mut deny);
    Ok(())
}
