//! Colours and attributes of text.

use ratatui::style::{Color, Modifier, Style};

use super::ascii::shows_utf8;
use super::rows::Urgency;

/// How things are drawn. Without colours, text is only bold, dim or reversed, and the signs show the states.
pub(super) struct Palette {
    pub(super) has_colors: bool,
    /// Whether the terminal shows ASCII only.
    pub(super) is_ascii: bool,
}

impl Palette {
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self {
        has_colors: false,
        is_ascii: false,
    };
    #[cfg(test)]
    pub(super) const COLORED: Self = Self {
        has_colors: true,
        is_ascii: false,
    };

    /// With colours unless the environment asks for none (<https://no-color.org>), and in UTF-8 if the locale says so.
    pub(super) fn from_environment() -> Self {
        Self {
            has_colors: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            is_ascii: !shows_utf8(|name| std::env::var_os(name)),
        }
    }

    pub(super) fn style(&self, urgency: Urgency) -> Style {
        let color = match urgency {
            Urgency::Good => Color::Green,
            Urgency::Warning => Color::Yellow,
            Urgency::Bad => Color::Red,
            Urgency::Neutral => return Style::new().add_modifier(Modifier::DIM),
        };
        if self.has_colors {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }
}

pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(super) const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);
