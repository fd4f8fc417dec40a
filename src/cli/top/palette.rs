//! Colours and attributes of text.

use ratatui::style::{Color, Modifier, Style};

use super::rows::Urgency;

/// The styles. Without colours, bold, dim and reversed text are left, and signs say what colours would.
pub(super) struct Palette {
    has_colors: bool,
}

impl Palette {
    pub(super) const PLAIN: Self = Self { has_colors: false };
    pub(super) const COLORED: Self = Self { has_colors: true };

    /// With colours unless the environment asks for none (<https://no-color.org>).
    pub(super) fn from_environment() -> Self {
        let has_colors = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if has_colors { Self::COLORED } else { Self::PLAIN }
    }

    pub(super) fn style(&self, severity: Urgency) -> Style {
        let color = match severity {
            Urgency::Good => Color::Green,
            Urgency::Warning => Color::Yellow,
            Urgency::Bad => Color::Red,
            Urgency::Unknown => return Style::new().add_modifier(Modifier::DIM),
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
