//! Pictures of what was measured, for docs/benchmarks.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use plotters::prelude::*;

/// Where they are kept; `OSTLER_BENCH_CHARTS` says otherwise.
const FOLDER: &str = "docs/benchmarks";
/// Width and height of each.
const SIZE: (u32, u32) = (760, 380);

/// How many had come by when.
pub(crate) struct Curve<'a> {
    pub(crate) name: &'a str,
    /// Rising.
    pub(crate) times: &'a [Duration],
}

fn file(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var("OSTLER_BENCH_CHARTS").unwrap_or_else(|_| FOLDER.to_owned());
    std::fs::create_dir_all(&folder)?;
    Ok(Path::new(&folder).join(name))
}

/// Colours that people tell apart, also those who do not see red and green as others do (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Draws how many had come by when, each curve one way to do it, and the bar as an upright line. With the title goes
/// what is counted.
pub(crate) fn curves(
    name: &str,
    title: (&str, &str),
    curves: &[Curve<'_>],
    bar: Duration,
) -> anyhow::Result<()> {
    let path = file(name)?;
    draw_curves(&path, title, curves, bar).map_err(|error| anyhow!("{}: {error}", path.display()))
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw_curves(path: &Path, (title, of): (&str, &str), curves: &[Curve<'_>], bar: Duration) -> Drawn {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let last = curves.iter().filter_map(|curve| curve.times.last()).max().copied().unwrap_or_default();
    let width = last.max(bar).as_secs_f64() * 1.05;
    let height = curves.iter().map(|curve| curve.times.len()).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..width, 0..height + height / 20)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("seconds").y_desc(of).draw()?;
    for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let points = std::iter::once((0.0, 0))
            .chain(curve.times.iter().enumerate().map(|(n, time)| (time.as_secs_f64(), n + 1)));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    let at = bar.as_secs_f64();
    chart
        .draw_series(std::iter::once(PathElement::new([(at, 0), (at, height)], BLACK.stroke_width(1))))?
        .label("bar")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLACK.stroke_width(1)));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Draws which share of all took how long at most; the times rise.
pub(crate) fn lags(name: &str, title: &str, times: &[Duration]) -> anyhow::Result<()> {
    let path = file(name)?;
    draw_lags(&path, title, times).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_lags(path: &Path, title: &str, times: &[Duration]) -> Drawn {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let last = times.last().copied().unwrap_or_default().as_secs_f64() * 1_000.0;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last * 1.05, 0.0..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("milliseconds")
        .y_desc("percent of lines")
        .draw()?;
    let all = times.len().max(1) as f64;
    let points = times
        .iter()
        .enumerate()
        .map(|(n, time)| (time.as_secs_f64() * 1_000.0, 100.0 * (n + 1) as f64 / all));
    chart.draw_series(LineSeries::new(points, COLOURS[0].stroke_width(2)))?;
    area.present()?;
    Ok(())
}

/// Draws how far each value is from its limit: 1 is the limit.
pub(crate) fn ratios(name: &str, title: &str, rows: &[(String, f64)]) -> anyhow::Result<()> {
    let path = file(name)?;
    draw_ratios(&path, title, rows).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_ratios(path: &Path, title: &str, rows: &[(String, f64)]) -> Drawn {
    let area = SVGBackend::new(path, (SIZE.0, 90 + 34 * u32::try_from(rows.len())?)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = rows.iter().map(|row| row.1).fold(1.0, f64::max) * 1.1;
    let names: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(230)
        .build_cartesian_2d(0.0..most, (0..rows.len() - 1).into_segmented())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .disable_y_mesh()
        .x_desc("share of the limit (1 = the limit)")
        .y_label_formatter(&|segment| match segment {
            SegmentValue::CenterOf(n) | SegmentValue::Exact(n) => {
                names.get(*n).copied().unwrap_or("").to_owned()
            }
            SegmentValue::Last => String::new(),
        })
        .draw()?;
    chart.draw_series(rows.iter().enumerate().map(|(n, (_, value))| {
        let colour = if *value <= 1.0 { COLOURS[0] } else { COLOURS[1] };
        let mut bar = Rectangle::new(
            [(0.0, SegmentValue::Exact(n)), (*value, SegmentValue::Exact(n + 1))],
            colour.filled(),
        );
        bar.set_margin(5, 5, 0, 0);
        bar
    }))?;
    let line = [(1.0, SegmentValue::Exact(0)), (1.0, SegmentValue::Last)];
    chart.draw_series(std::iter::once(PathElement::new(line, BLACK.stroke_width(2))))?;
    area.present()?;
    Ok(())
}
