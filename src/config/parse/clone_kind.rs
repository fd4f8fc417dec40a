//! What a clone of `[pools.NAME.scale]` is.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::address::InvalidValue;
use super::providers::Providers;
use super::{Problems, Section, value};
use crate::config::file::Node;
use crate::config::keys;
use crate::docker::HOST_NETWORK;
use crate::scale::{CloneCommand, CloneContainer, CloneHook, CloneKind};
use crate::text::parse_digits;

/// The default of `ports`. Not one of them is in [`EPHEMERAL`].
const PORTS_DEFAULT: RangeInclusive<u16> = 20_000..=20_099;

/// The ports that Linux gives to outgoing connections by default (ip(7), `ip_local_port_range`).
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// The keys that say what a clone is.
const KINDS: [&str; 3] = ["command", "docker", "hook"];

const COMMAND_EXAMPLE: &str = r#"command = ["/usr/local/bin/app", "--port", "{port}"]"#;
const START_EXAMPLE: &str = r#"start = ["/usr/local/bin/start-vm", "{name}"]"#;
const STOP_EXAMPLE: &str = r#"stop = ["/usr/local/bin/stop-vm", "{name}"]"#;
const IMAGE_EXAMPLE: &str = r#"image = "registry/app:1""#;
const PORT_EXAMPLE: &str = "port = 8080";

/// The kind of the clones. `None`: it is missing or not valid, which is reported.
pub(super) fn clone_kind(
    section: &Section<'_>,
    clones_max: u32,
    providers: &Providers,
    problems: &mut Problems<'_>,
) -> Option<CloneKind> {
    let mut named = KINDS.into_iter().filter(|key| section.get(key).is_some());
    let kind = named.next();
    if let (Some(first), Some(second)) = (kind, named.next()) {
        let (position, _) = section.entry(second)?;
        problems.error(
            position,
            format!("there are both `{first}` and `{second}`"),
            "remove one of them",
        );
        return None;
    }
    for key in ["user", "ports"] {
        if let Some((position, _)) = section.entry(key)
            && matches!(kind, Some("docker" | "hook"))
        {
            problems.warning(position, format!("`{key}` is never used"), "it belongs to `command`");
        }
    }
    if let Some((position, _)) = section.entry("env")
        && kind == Some("docker")
    {
        problems.error(
            position,
            "`env` beside `docker`",
            "write it in `docker`: docker = { env = { … }, … }",
        );
    }
    match kind {
        Some("command") => command(section, clones_max, providers, problems).map(CloneKind::Command),
        Some("docker") => container(section, providers, problems).map(CloneKind::Docker),
        Some(_) => hook(section, problems).map(CloneKind::Hook),
        None => {
            if KINDS.iter().all(|key| section.is_missing(key)) {
                let hint = format!(
                    "add {COMMAND_EXAMPLE}, or docker = {{ {IMAGE_EXAMPLE}, {PORT_EXAMPLE} }}, or hook = {{ {START_EXAMPLE}, \
                     {STOP_EXAMPLE} }}"
                );
                problems.error(section.position(), "nothing says what a clone is", hint);
            }
            None
        }
    }
}

fn command(
    section: &Section<'_>,
    clones_max: u32,
    providers: &Providers,
    problems: &mut Problems<'_>,
) -> Option<CloneCommand> {
    let user = section.name("user", problems);
    if let Some((position, _)) = section.entry("user")
        && let Some(missing) = user.and_then(|name| providers.missing_user(name))
    {
        problems.warning(position, missing, "write one that exists: no clone starts otherwise");
    }
    Some(CloneCommand {
        words: value::command(section.get("command")?, COMMAND_EXAMPLE, problems),
        env: env(section, problems),
        user: user.map(Into::into),
        ports: ports(section, clones_max, problems)?,
    })
}

fn container(section: &Section<'_>, providers: &Providers, problems: &mut Problems<'_>) -> Option<CloneContainer> {
    let (position, node) = section.entry("docker")?;
    problems.check_may_run(&node.position, "containers");
    let docker = Section::open(node, position, &keys::SCALE_DOCKER, problems)?;
    let image = docker.required("image", IMAGE_EXAMPLE, problems).and_then(|node| {
        let hint = format!("write {IMAGE_EXAMPLE}");
        let image = value::string(node, &hint, problems)?;
        if !is_image(image) {
            problems.error(&node.position, "this is not the name of an image", hint);
        }
        Some(image.into())
    });
    docker.required("port", PORT_EXAMPLE, problems);
    let port = docker.port("port", problems);
    let network = docker.name("network", problems);
    if let Some((position, _)) = docker.entry("network")
        && let Some(network) = network
        && (network == HOST_NETWORK || network == "none" || network.starts_with("container:"))
    {
        let message = format!("clones have no addresses of their own in network `{network}`");
        problems.error(
            position,
            message,
            "write the name of a network that `docker network create` made",
        );
    }
    Some(CloneContainer {
        socket: Arc::clone(&providers.docker_socket),
        env: env(&docker, problems),
        network: network.map(Into::into),
        image: image?,
        port: port?,
    })
}

/// Whether this may be the name of an image. Only the engine knows which names exist. The characters that are allowed
/// need no escape in a URL.
fn is_image(name: &str) -> bool {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_valid) && !name.contains("//")
}

fn hook(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CloneHook> {
    let (position, node) = section.entry("hook")?;
    let hook = Section::open(node, position, &keys::SCALE_HOOK, problems)?;
    let mut words = |key, example| {
        let node = hook.required(key, example, problems)?;
        Some(value::command(node, example, problems))
    };
    let (start, stop) = (words("start", START_EXAMPLE), words("stop", STOP_EXAMPLE));
    Some(CloneHook {
        start: start?,
        stop: stop?,
        env: env(section, problems),
    })
}

/// Environment variables.
fn env(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<(Box<str>, Box<str>)> {
    let example = r#"{ DATABASE_URL = "postgres://app@10.0.0.1/app" }"#;
    let table = section
        .get("env")
        .and_then(|node| value::table(node, example, problems));
    let mut variables = Vec::new();
    for entry in table.map_or(&[][..], |table| &table.entries) {
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            let hint = "write a name without `=`";
            problems.error(&entry.position, "invalid name of an environment variable", hint);
        }
        let Some(text) = value::string(&entry.node, "write it in quotes", problems) else {
            continue;
        };
        if text.contains('\0') {
            problems.error(&entry.node.position, "the value has a zero byte", "remove it");
        }
        variables.push((entry.key.as_str().into(), text.into()));
    }
    variables
}

fn ports(section: &Section<'_>, clones_max: u32, problems: &mut Problems<'_>) -> Option<RangeInclusive<u16>> {
    let Some(node) = section.get("ports") else {
        if let Some((position, _)) = section.entry("max")
            && PORTS_DEFAULT.len() < clones_max as usize
        {
            let message = format!(
                "the {} default ports are too few for `max = {clones_max}`",
                PORTS_DEFAULT.len()
            );
            problems.error(position, message, r#"add a wider range, such as ports = "20000-20299""#);
        }
        return Some(PORTS_DEFAULT);
    };
    let range = value::parsed(node, range_of, problems)?;
    check_ports(node, &range, clones_max, problems);
    Some(range)
}

fn check_ports(node: &Node, range: &RangeInclusive<u16>, clones_max: u32, problems: &mut Problems<'_>) {
    if range.len() < clones_max as usize {
        let message = format!("{} ports are too few for `max = {clones_max}`", range.len());
        problems.error(&node.position, message, "write a wider range, or a lower `max`");
    }
    if range.start() <= EPHEMERAL.end() && range.end() >= EPHEMERAL.start() {
        let (first, last) = (EPHEMERAL.start(), EPHEMERAL.end());
        let hint = format!("{first}-{last} are usually the ports of outgoing connections: use others");
        problems.warning(&node.position, "a port may be in use when a clone wants it", hint);
    }
}

fn range_of(text: &str) -> Result<RangeInclusive<u16>, InvalidValue> {
    let range = || {
        let (first, last) = text.split_once('-')?;
        let (first, last): (u16, u16) = (parse_digits(first.trim())?, parse_digits(last.trim())?);
        (1..=last).contains(&first).then_some(first..=last)
    };
    range().ok_or_else(|| {
        let hint = r#"write the first and the last, as in "20000-20099""#;
        (format!("`{text}` is not a range of ports"), hint.to_owned())
    })
}
