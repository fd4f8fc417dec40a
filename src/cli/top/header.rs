//! The lines above the table.

use std::time::Duration;

use ratatui::text::{Line, Span};

use super::palette::{BOLD, DIM, Palette, REVERSED};
use super::rates::Rates;
use super::rows::{Urgency, state_of};
use super::view::{Tab, View};
use crate::admin::bodies::StateBody;
use crate::cli::status::age_text;
use crate::cli::table::{duration, size};
use crate::text::{counted, escape, first_and_more};

/// How long the process must be silent before the screen says so. News comes every second, or with polls every 2 s.
const SILENCE_SHOWN: Duration = Duration::from_secs(4);

pub(super) fn process_line(view: &View, state: &StateBody, palette: &Palette) -> Line<'static> {
    let up_for = age_text(&state.started);
    let mut spans = vec![
        Span::styled("acequia", BOLD),
        format!(" {}, up {up_for}", escape(&state.version, &[])).into(),
    ];
    if state.draining {
        spans.push(Span::styled("  draining", palette.style(Urgency::Warning).patch(BOLD)));
    }
    let silence = view.heard_at.elapsed();
    if silence > SILENCE_SHOWN {
        let text = format!("  ! nothing heard for {}", duration(silence));
        spans.push(Span::styled(text, palette.style(Urgency::Warning).patch(BOLD)));
    } else if view.is_polling {
        spans.push(Span::styled("  polling, as all streams are taken", DIM));
    }
    Line::from(spans)
}

pub(super) fn rates_line(view: &View, state: &StateBody) -> Line<'static> {
    let totals = &state.totals;
    let rate = |of: fn(&Rates) -> String| {
        view.rates
            .as_ref()
            .map_or_else(|| "–".to_owned(), |rates| of(rates) + "/s")
    };
    let usable = if totals.servers_usable == totals.servers_up {
        String::new()
    } else {
        format!(", {} usable", totals.servers_usable)
    };
    let parts = [
        ("sessions ", totals.sessions.to_string()),
        ("new ", rate(|rates| rates.opened.to_string())),
        ("up ", rate(|rates| size(rates.bytes_up))),
        ("down ", rate(|rates| size(rates.bytes_down))),
        (
            "servers ",
            format!("{} of {} up{usable}", totals.servers_up, totals.servers),
        ),
    ];
    let spans = parts.into_iter().enumerate().flat_map(|(index, (name, value))| {
        let gap = if index == 0 { "" } else { "   " };
        [gap.into(), Span::styled(name, DIM), Span::styled(value, BOLD)]
    });
    Line::from_iter(spans)
}

/// The most important notice, and how many more there are.
pub(super) fn worst_notice(state: &StateBody) -> Option<(Urgency, String)> {
    let mut notices = Vec::new(); // the most urgent first
    for pool in &state.pools {
        if !pool.usable {
            let instead = pool.served_by.as_ref();
            let instead = instead.map_or_else(String::new, |by| format!(", new sessions go to {by}"));
            notices.push((
                Urgency::Bad,
                format!("✕ pool {} has no usable server{instead}", pool.name),
            ));
        }
        if pool.primaries.len() > 1 {
            let primaries = pool.primaries.join(", ");
            notices.push((
                Urgency::Bad,
                format!("✕ pool {} has several primaries: {primaries}", pool.name),
            ));
        }
    }
    notices.extend(down_notice(state).map(|text| (Urgency::Bad, format!("✕ {text}"))));
    let of_process = process_notices(state).into_iter();
    notices.extend(of_process.map(|text| (Urgency::Warning, format!("! {text}"))));
    for pool in state.pools.iter().filter(|pool| pool.panic) {
        notices.push((
            Urgency::Warning,
            format!(
                "! pool {} also uses unhealthy servers: too few of a tier are healthy",
                pool.name
            ),
        ));
    }
    let others = notices.len().saturating_sub(1);
    let (urgency, text) = notices.into_iter().next()?;
    let more = if others > 0 {
        format!(" (and {others} more)")
    } else {
        String::new()
    };
    Some((urgency, text + &more))
}

/// Names servers that are down or ejected, because their rows are perhaps not on the screen.
fn down_notice(state: &StateBody) -> Option<String> {
    let down = state.servers().filter(|(_, server)| {
        let (_, _, urgency) = state_of(server);
        urgency == Urgency::Bad
    });
    let down: Vec<_> = down
        .map(|(pool, server)| format!("{}/{}", pool.name, server.name))
        .collect();
    let verb = if down.len() == 1 { "is" } else { "are" };
    (!down.is_empty()).then(|| {
        let names = first_and_more(down.iter(), 3).join(", ");
        format!("{} {verb} down or ejected: {names}", counted(down.len(), "server"))
    })
}

/// Problems with the configuration, with the sources that it comes from, and with what cannot be saved.
fn process_notices(state: &StateBody) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(reload) = state.last_reload.as_ref().filter(|reload| !reload.done) {
        notices.push(format!(
            "the last reload failed {} ago, requested by {}: the log says why",
            age_text(&reload.at),
            reload.by
        ));
    }
    if let Some(remote) = &state.remote {
        let lost = remote.lost.iter();
        notices.extend(lost.map(|error| format!("{} does not answer: {error}", remote.from)));
        if remote.has_namesake {
            notices.push(format!(
                "another process runs as instance {} of {}",
                remote.instance, remote.from
            ));
        }
        let refused = remote.refused.iter().map(|refused| age_text(&refused.since));
        notices.extend(refused.map(|ago| format!("{}: the latest configuration was refused {ago} ago", remote.from)));
    }
    if let Some(announced) = &state.announced {
        let error = announced.error.iter();
        notices.extend(error.map(|error| format!("announced routes stay as they are: {}: {error}", announced.source)));
    }
    notices.extend(
        state
            .unsaved
            .iter()
            .map(|reason| format!("not saved, and lost at a restart: {reason}")),
    );
    notices
}

pub(super) fn tabs_line(view: &View) -> Line<'static> {
    let servers = view.state.as_ref().map_or(0, |state| state.totals.servers);
    let sessions = view.state.as_ref().map_or(0, |state| state.totals.sessions);
    let tab = |tab, name: &str, count: usize| {
        let style = if view.tab == tab { REVERSED } else { DIM };
        Span::styled(format!(" {name} {count} "), style)
    };
    let mut spans = vec![
        tab(Tab::Servers, "Servers", servers),
        " ".into(),
        tab(Tab::Sessions, "Sessions", sessions),
    ];
    if view.is_typing || !view.filter().is_empty() {
        let cursor = if view.is_typing { "▏" } else { "" };
        spans.push(format!("  filter: {}{cursor}", view.filter()).into());
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::view::tests::view_of;

    #[test]
    fn the_most_severe_notice_is_shown_first() {
        let mut view = view_of(&[("a", 2)]);
        let state = view.state.as_mut().unwrap();
        assert!(worst_notice(state).is_none());
        state.pools[0].panic = true;
        let (urgency, text) = worst_notice(state).unwrap();
        assert_eq!(urgency, Urgency::Warning, "{text}");
        state.pools[0].usable = false;
        let (urgency, text) = worst_notice(state).unwrap();
        assert_eq!(
            (urgency, &*text),
            (Urgency::Bad, "✕ pool shop has no usable server (and 1 more)")
        );
    }

    #[test]
    fn servers_that_are_down_are_named() {
        let mut view = view_of(&[("a", 2), ("b", 0), ("c", 0)]);
        let state = view.state.as_mut().unwrap();
        let servers = &mut state.pools[0].servers;
        servers[1].health = "down".to_owned();
        (servers[2].health, servers[2].usage) = ("down".to_owned(), "disabled".to_owned());
        let (urgency, text) = worst_notice(state).unwrap();
        assert_eq!(
            (urgency, &*text),
            (Urgency::Bad, "✕ 1 server is down or ejected: shop/b")
        );
        state.pools[0].servers[2].usage = "enabled".to_owned();
        assert_eq!(
            worst_notice(state).unwrap().1,
            "✕ 2 servers are down or ejected: shop/b, shop/c"
        );
    }
}
