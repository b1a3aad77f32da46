//! Line charts as SVG and rows of tables, for the book: no more than is needed, and readable on light and dark pages.

use std::fmt::Write;

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// A value for each place on the horizontal axis, above 0; NaN where there is none.
    pub values: Vec<f64>,
}

/// One chart, of several that share their axes.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// Its lines.
    pub series: Vec<Series>,
}

const W: f64 = 230.0;
const H: f64 = 210.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const COLOURS: [&str; 6] = ["#1b7fc4", "#d1495b", "#7a7a7a", "#2e9e5b", "#b07d00", "#7b4fc9"];

/// A row of a table in markdown.
pub(crate) fn row<C: AsRef<str>>(
    out: &mut String,
    first: &str,
    cells: impl IntoIterator<Item = C>,
) -> std::fmt::Result {
    write!(out, "| {first} |")?;
    for cell in cells {
        write!(out, " {} |", cell.as_ref())?;
    }
    writeln!(out)
}

/// Charts in a row of the page each, `columns` beside each other, with the values on a logarithmic axis.
#[must_use]
pub fn panels(panels: &[Panel], columns: usize, ticks: &[&str], across: &str, up: &str) -> String {
    let values = || panels.iter().flat_map(|panel| &panel.series).flat_map(|series| &series.values).copied();
    let (low, high) =
        (values().fold(f64::MAX, f64::min).log10(), values().fold(f64::MIN_POSITIVE, f64::max).log10());
    let (low, high) = ((low * 2.0).floor() / 2.0, (high * 2.0).ceil() / 2.0);
    let (columns, rows) = (columns.max(1), panels.len().div_ceil(columns.max(1)));
    let width = LEFT + columns as f64 * (W + 20.0);
    let height = TOP + rows as f64 * (H + 50.0) + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    let names = panels.first().map(|panel| panel.series.as_slice()).unwrap_or_default();
    for (index, (series, colour)) in names.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let x = LEFT + index as f64 * ((width - LEFT) / names.len() as f64).min(130.0);
        put(&mut svg, format_args!("<path d=\"M{x} 14h18\" stroke=\"{colour}\" stroke-width=\"3\"/>"));
        text(&mut svg, (x + 24.0, 18.0), "start", &series.name);
    }
    for (index, panel) in panels.iter().enumerate() {
        let (x, y) =
            (LEFT + (index % columns) as f64 * (W + 20.0), TOP + (index / columns) as f64 * (H + 50.0));
        let place = |tick: usize, value: f64| {
            let across = (tick as f64 + 0.5) / ticks.len().max(1) as f64;
            (x + across * W, y + H - (value.log10() - low) / (high - low).max(0.1) * H)
        };
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{x}\" y=\"{y}\" width=\"{W}\" height=\"{H}\" fill=\"none\" stroke=\"#999999\"/>"
            ),
        );
        text(&mut svg, (x + W / 2.0, y - 6.0), "middle", &panel.title);
        for (tick, label) in ticks.iter().enumerate() {
            text(&mut svg, (place(tick, 1.0).0, y + H + 14.0), "middle", label);
        }
        for value in grid(low, high) {
            let (_, line) = place(0, value);
            put(&mut svg, format_args!("<path d=\"M{x} {line:.1}h{W}\" stroke=\"#dddddd\"/>"));
            if index % columns == 0 {
                text(&mut svg, (x - 6.0, line + 4.0), "end", &format!("{value}"));
            }
        }
        for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> = series
                .values
                .iter()
                .enumerate()
                .filter(|(_, value)| value.is_finite())
                .map(|(tick, value)| place(tick, *value))
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let points = points.join(" ");
            put(
                &mut svg,
                format_args!(
                    "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
                ),
            );
        }
    }
    text(&mut svg, (LEFT + W / 2.0, height - 8.0), "middle", across);
    put(
        &mut svg,
        format_args!(
            "<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{up}</text>",
            TOP + H / 2.0
        ),
    );
    svg.push_str("</svg>\n");
    svg
}

/// 1, 2 and 5 of each power of ten that is within the axis.
fn grid(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let powers = low.floor() as i32..=high.ceil() as i32;
    powers
        .flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)))
        .filter(move |value| (low..=high).contains(&value.log10()))
        // 0.30000000000000004 is no label.
        .map(|value| (value * 1e6).round() / 1e6)
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    put(
        svg,
        format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#333333\">{text}</text>"
        ),
    );
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(svg, "{element}");
}
