//! Terminals that do not show UTF-8.

use std::ffi::OsString;

use ratatui::buffer::Buffer;

/// Whether the locale says that the terminal shows UTF-8 (POSIX.1-2017, section 8.2). Without a locale it is `C`.
pub(super) fn shows_utf8(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Replaces characters that are not ASCII by similar ones.
pub(super) fn to_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let like = match cell.symbol() {
                "✓" => "+",
                "✕" | "×" => "x",
                "↓" => "v",
                "↑" => "^",
                "⏸" => "=",
                "⏏" => "e",
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
    use super::*;

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
