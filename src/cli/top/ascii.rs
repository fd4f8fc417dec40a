//! Terminals that do not show UTF-8.

use std::ffi::OsString;

use ratatui::buffer::Buffer;

/// Whether the locale says that the terminal shows UTF-8 (POSIX.1-2017, section 8.2). False if no variable of the
/// locale is set. `variable` reads an environment variable.
pub(super) fn shows_utf8(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Replaces each character that is not ASCII by a similar one, or by `?`.
pub(super) fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let like = match cell.symbol() {
                "✓" => "+",
                "✕" | "×" => "x",
                "↓" => "v",
                "↑" => "^",
                "‖" => "=",
                "≠" => "/",
                "■" => "#",
                "–" | "─" => "-",
                "…" => "~",
                "µ" => "u",
                "│" | "▏" => "|",
                "┌" | "┐" | "└" | "┘" => "+",
                _ => "?",
            };
            cell.set_symbol(like);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ratatui::layout::Rect;

    use super::*;
    use crate::cli::top::rows::state_of;
    use crate::cli::top::view::tests::view_of;

    #[test]
    fn each_known_state_has_an_ascii_sign_of_its_own() {
        let mut view = view_of(&[("a", 1)]);
        let server = &mut view.state.as_mut().unwrap().pools[0].servers[0];
        let mut signs = HashSet::new();
        for (usage, health, ejected, max_sessions) in [
            ("disabled", "up", false, None),
            ("draining", "up", false, None),
            ("awaiting failback", "up", false, None),
            ("enabled", "up", true, None),
            ("enabled", "down", false, None),
            ("enabled", "wrong role", false, None),
            ("enabled", "check refused", false, None),
            ("enabled", "up", false, Some(1)),
            ("enabled", "up", false, None),
        ] {
            (server.usage, server.health) = (usage.to_owned(), health.to_owned());
            (server.ejected, server.max_sessions) = (ejected, max_sessions);
            let mut buffer = Buffer::empty(Rect::new(0, 0, 1, 1));
            buffer.content[0].set_symbol(state_of(server).0);
            to_ascii(&mut buffer);
            let sign = buffer.content[0].symbol().to_owned();
            assert!(sign.is_ascii() && sign != "?", "{usage}, {health}: {sign}");
            assert!(signs.insert(sign), "{usage}, {health}");
        }
    }

    #[test]
    fn the_first_variable_that_is_set_tells_the_encoding() {
        for (all, ctype, lang, expected) in [
            ("", "", "", false),
            ("", "", "de_DE.UTF-8", true),
            ("C", "", "de_DE.UTF-8", false),
            ("", "C.utf8", "C", true),
            ("", "POSIX", "en_US.UTF-8", false),
            ("C.UTF-8", "C", "C", true),
        ] {
            let variable = |name: &str| {
                let value = match name {
                    "LC_ALL" => all,
                    "LC_CTYPE" => ctype,
                    _ => lang,
                };
                Some(value.into())
            };
            assert_eq!(shows_utf8(variable), expected, "{all:?} {ctype:?} {lang:?}");
        }
        assert!(!shows_utf8(|_| None));
    }
}
