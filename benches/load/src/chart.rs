//! The chart of a run: a panel for each figure, with a bar for each proxy, and one for connections without a proxy if
//! they have the figure.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Figures, Idle, Report, Row, cpu_text, rate_text};

/// The width of a panel, in pixels.
const PANEL_WIDTH: u32 = 460;
const COLUMNS: usize = 2;
/// The x position at which bars begin, in pixels.
const BARS_X: i32 = 150;
/// The y position of the first bar, in pixels.
const BARS_Y: u32 = 40;
/// The distance from the top of one bar to the top of the next, in pixels.
const BAR_STEP: u32 = 25;
/// In pixels.
const BAR_HEIGHT: i32 = 18;
/// The length of the longest bar, in pixels.
const BAR_LENGTH_MAX: i32 = 210;
const ACEQUIA_COLOUR: RGBColor = RGBColor(0, 122, 135);
const OTHERS_COLOUR: RGBColor = RGBColor(168, 176, 184);

struct Panel {
    title: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    name: &'static str,
    value: f64,
    text: String,
}

/// Draws the most important figures, as far as the run has measured them. Without any of them, no file is written.
///
/// # Panics
/// When the file cannot be written.
pub(crate) fn draw(report: &Report, path: &Path) {
    let panels = panels(report);
    if panels.is_empty() {
        return;
    }
    let rows = panels.len().div_ceil(COLUMNS);
    let bars_max = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let panel_height = BARS_Y + BAR_STEP * bars_max as u32 + 10; // a margin below the last bar
    let size = (PANEL_WIDTH * COLUMNS as u32, panel_height * rows as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE).expect("the background can be filled");
    for (panel, area) in panels.iter().zip(area.split_evenly((rows, COLUMNS))) {
        paint(panel, &area).expect("the bars can be drawn");
    }
    area.present().expect("the chart can be written");
}

/// The panels whose workloads the run has measured. Shorter bars are better, except in the panel that says otherwise.
fn panels(report: &Report) -> Vec<Panel> {
    let cpu = |title, workload: &str| {
        let mut panel = panel(report, title, workload, |figures| figures.cpu_each, cpu_text)?;
        panel.bars.retain(|bar| bar.value > 0.0); // the row of connections without a proxy has no CPU time
        Some(panel)
    };
    let panels = [
        cpu(
            "CPU per 64-byte round trip, 128 sessions",
            "64-byte round trips, 128 sessions",
        ),
        panel(
            report,
            "p99 at 10,000 round trips a second",
            "64-byte round trips, 128 sessions, 10,000/s",
            |figures| figures.p99,
            |seconds, _| format!("{:.0} µs", seconds * 1e6),
        ),
        cpu("CPU per new session", "new sessions"),
        cpu(
            "CPU per new session by one of 10,000 names",
            "new sessions by name, among 10000 names",
        ),
        panel(
            report,
            "bulk, 8 sessions (longer is better)",
            "bulk down, 8 sessions",
            |figures| figures.rate,
            rate_text,
        ),
        cpu("CPU per GB, 8 sessions", "bulk down, 8 sessions"),
        memory(report),
    ];
    panels.into_iter().flatten().collect()
}

/// A panel with a bar for each row of a workload. The length of a bar is the median of a figure over all rounds of the
/// workload. `text` formats this median; it also gets the workload's unit of work. `None`: the run has not measured the
/// workload.
fn panel(
    report: &Report,
    title: &'static str,
    workload: &str,
    figure: fn(&Figures) -> f64,
    text: fn(f64, &str) -> String,
) -> Option<Panel> {
    let table = report.table(workload)?;
    let bar = |row: &Row| {
        let value = row.median(figure);
        Bar {
            name: row.name,
            value,
            text: text(value, table.unit),
        }
    };
    Some(Panel {
        title,
        bars: table.rows.iter().map(bar).collect(),
    })
}

fn memory(report: &Report) -> Option<Panel> {
    let bar = |idle: &Idle| Bar {
        name: idle.name,
        value: idle.user_bytes as f64,
        text: format!("{} bytes", idle.user_bytes),
    };
    (!report.idle.is_empty()).then(|| Panel {
        title: "user memory of an idle session",
        bars: report.idle.iter().map(bar).collect(),
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn paint(panel: &Panel, area: &Area<'_>) -> Result<(), Box<dyn std::error::Error>> {
    let black = ("sans-serif", 13).into_font().color(&BLACK);
    let left_aligned = black.pos(Pos::new(HPos::Left, VPos::Center));
    let right_aligned = black.pos(Pos::new(HPos::Right, VPos::Center));
    let bold = ("sans-serif", 15).into_font().style(FontStyle::Bold).color(&BLACK);
    area.draw(&Text::new(panel.title, (16, 12), bold))?;
    let longest = panel.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
    for (number, bar) in panel.bars.iter().enumerate() {
        let top = i32::try_from(BARS_Y + BAR_STEP * number as u32)?;
        let (middle, bottom) = (top + BAR_HEIGHT / 2, top + BAR_HEIGHT);
        let is_acequia = bar.name.starts_with("acequia"); // `another acequia` is another build
        let colour = if is_acequia { ACEQUIA_COLOUR } else { OTHERS_COLOUR };
        let end = BARS_X + (f64::from(BAR_LENGTH_MAX) * bar.value / longest) as i32;
        area.draw(&Rectangle::new([(BARS_X, top), (end, bottom)], colour.filled()))?;
        area.draw(&Text::new(bar.name, (BARS_X - 6, middle), right_aligned.clone()))?;
        area.draw(&Text::new(bar.text.clone(), (end + 6, middle), left_aligned.clone()))?;
    }
    Ok(())
}
