//! The configuration of a pool that grows and shrinks.

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::ScaleRules;
use crate::pool::MemberConfig;

/// `[pools.NAME.scale]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePlan {
    /// When the pool grows and shrinks.
    pub rules: ScaleRules,
    /// The kind of a clone.
    pub kind: CloneKind,
    /// The weight and priority of a clone, and the most sessions that it may have.
    pub member_config: MemberConfig,
    /// How long the sessions on a leaving clone may go on, and how long its process may take to end after SIGTERM.
    pub drain: Duration,
    /// How long a clone may take from its start to its first good check.
    pub start_timeout: Duration,
    /// How long a clone may be down before it is stopped and started again.
    pub replace_after: Duration,
}

impl ScalePlan {
    /// How long a client of a pool that sleeps may wait; `None`: the pool never sleeps.
    #[must_use]
    pub fn wake_timeout(&self) -> Option<Duration> {
        (self.rules.min == 0).then_some(self.start_timeout)
    }

    /// The ports that clones may have; `None`: they are not processes of this machine.
    #[must_use]
    pub fn ports(&self) -> Option<&RangeInclusive<u16>> {
        match &self.kind {
            CloneKind::Command(command) => Some(&command.ports),
            CloneKind::Docker(_) | CloneKind::Hook(_) => None,
        }
    }
}

/// The kind of a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloneKind {
    /// A process of this machine.
    Command(CloneCommand),
    /// A container of Docker.
    Docker(CloneContainer),
    /// A server that two commands of the operator start and stop.
    Hook(CloneHook),
}

/// `command` of `[pools.NAME.scale]`, and the keys that belong to it. In `words` and the values of `env`, `{port}`,
/// `{name}` and `{pool}` are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneCommand {
    /// The absolute path of a program, and its arguments.
    pub words: Vec<Box<str>>,
    /// The configured environment variables.
    pub env: Vec<(Box<str>, Box<str>)>,
    /// The user that clones run as; `None`: that of this process.
    pub user: Option<Box<str>>,
    /// The ports that clones may have.
    pub ports: RangeInclusive<u16>,
}

/// `docker` of `[pools.NAME.scale]`. In the values of `env`, `{port}`, `{name}` and `{pool}` are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneContainer {
    /// The Unix socket of the engine's API.
    pub socket: Arc<Path>,
    /// The name of the image, with registry, tag or digest if there are any.
    pub image: Box<str>,
    /// The port of the server in the container.
    pub port: u16,
    /// The configured environment variables.
    pub env: Vec<(Box<str>, Box<str>)>,
    /// The network whose address a clone has; `None`: the default of the engine.
    pub network: Option<Box<str>>,
}

/// `hook` of `[pools.NAME.scale]`. In both commands and in the values of `env`, `{name}` and `{pool}` are replaced; for
/// `stop` also `{address}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloneHook {
    /// The command that starts a clone and prints its address: the absolute path of a program, and its arguments.
    pub start: Vec<Box<str>>,
    /// The command that stops a clone.
    pub stop: Vec<Box<str>>,
    /// Environment variables of both commands.
    pub env: Vec<(Box<str>, Box<str>)>,
}

/// Replaces `{key}` in a text by the value of the key. Other braces, and braces within a value, stay as they are.
#[must_use]
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    'text: while let Some(open) = rest.find('{') {
        filled.push_str(&rest[..open]);
        rest = &rest[open..];
        for (key, value) in values {
            let after = rest[1..].strip_prefix(key).and_then(|after| after.strip_prefix('}'));
            if let Some(after) = after {
                filled.push_str(value);
                rest = after;
                continue 'text;
            }
        }
        filled.push('{');
        rest = &rest[1..];
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_braces_are_replaced_but_not_within_values() {
        let values = [("port", "20000"), ("name", "{port}")];
        for (text, expected) in [
            ("--port={port}", "--port=20000"),
            ("{port}{port}", "2000020000"),
            ("{name}", "{port}"),
            ("{\"a\": {port}}", "{\"a\": 20000}"),
            ("{unknown} {port", "{unknown} {port"),
            ("{", "{"),
            ("é{port}é", "é20000é"),
        ] {
            assert_eq!(fill(text, &values), expected);
        }
    }
}
