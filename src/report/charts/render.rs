//! Pictures become SVG or PNG: the only file that calls plotters.
//!
//! Plotters places everything on whole pixels, so an SVG is drawn eight times as large and shown at
//! its own size through the view box; a PNG is drawn four times as large and averaged down to twice
//! its size, which smooths every edge and suits dense screens. Text is set in Ubuntu Light, which is
//! built in: a machine without any font can draw a PNG. It must not know a comparison.

use std::path::Path;
use std::sync::OnceLock;

use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{Circle, PathElement, Polygon, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{
    Color, FontDesc, FontFamily, FontStyle, IntoTextStyle, RGBAColor, RGBColor, ShapeStyle,
};

use super::picture::{Align, Ink, Mark, Picture, Rect, Shape};
use super::{PALETTE, heat};
use crate::error::{Error, Result};

const SVG_SCALE: f64 = 8.0;
const PNG_SCALE: usize = 2;
const OVERSAMPLING: usize = 2;
/// Stands for the page's own text colour until the SVG is finished; no series has it.
const FOREGROUND: RGBColor = RGBColor(heat::FOREGROUND[0], heat::FOREGROUND[1], heat::FOREGROUND[2]);
const FOREGROUND_HEX: &str = "\"#1F2328\"";
/// Stands for the page's colour, likewise; nobody tells it from white.
const PAGE: RGBColor = RGBColor(0xFE, 0xFE, 0xFE);
const PAGE_HEX: &str = "\"#FEFEFE\"";
const NOISE: RGBColor = RGBColor(0x80, 0x80, 0x80);
const FONT: &str = "sans-serif";

/// What surrounds an SVG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Svg {
    /// A page: text takes the page's colour and font, the background is the page's.
    Inline,
    /// Nothing: a file by itself, dark on white, so that it can be read wherever it is shown.
    File,
}

/// `picture` as an SVG document with its name and description for those who do not see it.
pub(super) fn svg(picture: &Picture, around: Svg, name: &str, description: &str) -> Result<String> {
    register_font()?;
    let size = pixels(picture, SVG_SCALE);
    let mut text = String::new();
    draw(&SVGBackend::with_string(&mut text, size).into_drawing_area(), picture, SVG_SCALE)?;
    // The first line is plotters' own opening tag, with the enlarged size as its size.
    let body = text.split_once('\n').map_or("", |(_, body)| body);
    let cells = cells(picture, around);
    let (w, h) = size;
    let (named, described) = (crate::report::html::escaped(name), crate::report::html::escaped(description));
    let label = format!("<title>{named}</title>\n<desc>{described}</desc>\n");
    Ok(match around {
        Svg::Inline => format!(
            "<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{named}\">\n{label}{cells}{}",
            in_page_colours(body)
        ),
        Svg::File => format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {w} {h}\" \
             role=\"img\">\n{label}<rect width=\"{w}\" height=\"{h}\" fill=\"#FFFFFF\"/>\n{cells}{body}",
            picture.width, picture.height
        ),
    })
}

/// Cells of heat maps, one path for each shade: a map of thousands of cells stays small.
fn cells(picture: &Picture, around: Svg) -> String {
    let scaled = |x: f64| (x * SVG_SCALE).round() as i64;
    let rectangle = |rect: &Rect| {
        let (left, top, right, bottom) =
            (scaled(rect.left), scaled(rect.top), scaled(rect.right), scaled(rect.bottom));
        let (width, height) = (right - left, bottom - top);
        format!("M{left} {top}h{width}v{height}h{}z", -width)
    };
    let path = |(rects, ink): (&Vec<Rect>, Ink)| {
        let tint = heat::tint(ink).filter(|tint| tint.opacity > 0.0)?;
        let fill = match around {
            Svg::Inline => tint.css(),
            Svg::File => tint.hex(),
        };
        let line: String = rects.iter().map(rectangle).collect();
        let opacity = (tint.opacity * 1000.0).round() / 1000.0;
        Some(format!(
            "<path fill=\"{fill}\" fill-opacity=\"{opacity}\" shape-rendering=\"crispEdges\" d=\"{line}\"/>\n"
        ))
    };
    cells_of(picture).filter_map(path).collect()
}

fn cells_of(picture: &Picture) -> impl Iterator<Item = (&Vec<Rect>, Ink)> {
    picture.marks.iter().filter_map(|mark| match mark {
        Mark::Cells { rects, ink } => Some((rects, *ink)),
        _ => None,
    })
}

/// `svg` with the colours that the page defines: its text colour, and `--s0`, `--s1`, … for the series.
fn in_page_colours(svg: &str) -> String {
    let text = svg.replace(FOREGROUND_HEX, "\"currentColor\"").replace(PAGE_HEX, "\"var(--card, Canvas)\"");
    PALETTE.iter().enumerate().fold(text, |text, (i, [r, g, b])| {
        text.replace(&format!("\"#{r:02X}{g:02X}{b:02X}\""), &format!("\"var(--s{i})\""))
    })
}

/// `picture` as a PNG file at twice its size, on white. The path must end in ".png".
pub(super) fn png(picture: &Picture, path: &Path) -> Result<()> {
    register_font()?;
    let (width, height) = pixels(picture, PNG_SCALE as f64);
    let (large_width, large_height) = (width as usize * OVERSAMPLING, height as usize * OVERSAMPLING);
    let mut large = vec![0xFF; large_width * large_height * 3];
    let scale = (PNG_SCALE * OVERSAMPLING) as f64;
    {
        let backend = BitMapBackend::with_buffer(&mut large, (large_width as u32, large_height as u32));
        let area = backend.into_drawing_area();
        draw_cells(&area, picture, scale)?;
        draw(&area, picture, scale)?;
    }
    let small = averaged(&large, large_width);
    let mut backend = BitMapBackend::new(path, (width, height));
    backend.blit_bitmap((0, 0), (width, height), &small).map_err(drawing_failed)?;
    backend.present().map_err(drawing_failed)
}

/// Width of `text` in pixels at `size`, with some room for fonts wider than the built-in one.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    if register_font().is_err() {
        return text.chars().count() as f64 * size * 0.6;
    }
    // Measured large: plotters rounds the width down to whole pixels.
    let font = FontDesc::new(FontFamily::Name(FONT), size * SVG_SCALE, FontStyle::Normal);
    let width = font.box_size(text).map_or(0.0, |(width, _)| f64::from(width) / SVG_SCALE);
    width * 1.08
}

/// Makes the built-in font known to plotters, once per process.
fn register_font() -> Result<()> {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let known = *REGISTERED.get_or_init(|| {
        let bytes = epaint_default_fonts::UBUNTU_LIGHT;
        plotters::style::register_font(FONT, FontStyle::Normal, bytes).is_ok()
    });
    if known {
        Ok(())
    } else {
        Err(Error::argument("the built-in font cannot be read", "please report this"))
    }
}

fn pixels(picture: &Picture, scale: f64) -> (u32, u32) {
    ((picture.width * scale).round() as u32, (picture.height * scale).round() as u32)
}

fn drawing_failed(reason: impl std::fmt::Display) -> Error {
    Error::argument(format!("cannot draw a chart: {reason}"), "is the output folder writable, the disk full?")
}

fn draw<DB: DrawingBackend>(area: &DrawingArea<DB, Shift>, picture: &Picture, scale: f64) -> Result<()> {
    let at = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
    for mark in &picture.marks {
        match mark {
            Mark::Line { points, ink, width, dashed } => {
                let style = colour(*ink).stroke_width((width * scale).round().max(1.0) as u32);
                for piece in if *dashed { dashes(points) } else { vec![points.clone()] } {
                    let mut piece: Vec<_> = piece.into_iter().map(at).collect();
                    piece.dedup();
                    if piece.len() > 1 {
                        area.draw(&PathElement::new(piece, style)).map_err(drawing_failed)?;
                    }
                }
            }
            Mark::Area { points, ink } => {
                let points: Vec<_> = points.iter().copied().map(at).collect();
                area.draw(&Polygon::new(points, colour(*ink).filled())).map_err(drawing_failed)?;
            }
            Mark::Cells { .. } => {} // Below all others: see `cells` and `draw_cells`.
            Mark::Dot { at: centre, radius, ink, shape, hollow } => {
                draw_dot(
                    area,
                    at(*centre),
                    radius * scale,
                    colour(*ink),
                    *shape,
                    hollow.then_some(1.5 * scale),
                )?;
            }
            Mark::Text { at: anchor, text, size, ink, align } => {
                let font = FontDesc::new(FontFamily::Name(FONT), size * scale, FontStyle::Normal);
                let colour = colour(*ink);
                let style = font.into_text_style(area).color(&colour).pos(anchored(*align));
                let text = crate::report::format::visible(text);
                area.draw(&Text::new(text, at(*anchor), style)).map_err(drawing_failed)?;
            }
        }
    }
    area.present().map_err(drawing_failed)
}

fn draw_cells<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    picture: &Picture,
    scale: f64,
) -> Result<()> {
    let at = |x: f64, y: f64| ((x * scale).round() as i32, (y * scale).round() as i32);
    for (rects, ink) in cells_of(picture) {
        for rect in rects {
            // Plotters leaves out the last column and row of a filled rectangle: neighbours neither overlap nor gape.
            let corners = [at(rect.left, rect.top), at(rect.right, rect.bottom)];
            area.draw(&Rectangle::new(corners, colour(ink).filled())).map_err(drawing_failed)?;
        }
    }
    Ok(())
}

fn draw_dot<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    (x, y): (i32, i32),
    radius: f64,
    colour: RGBAColor,
    shape: Shape,
    outline: Option<f64>,
) -> Result<()> {
    let style = outline.map_or(colour.filled(), |width| colour.stroke_width(width.round() as u32));
    let corner = |dx: f64, dy: f64| (x + (dx * radius).round() as i32, y + (dy * radius).round() as i32);
    let corners = match shape {
        Shape::Circle => {
            return area.draw(&Circle::new((x, y), radius.round() as i32, style)).map_err(drawing_failed);
        }
        Shape::Square => vec![corner(-0.9, -0.9), corner(0.9, -0.9), corner(0.9, 0.9), corner(-0.9, 0.9)],
        Shape::Diamond => vec![corner(0.0, -1.25), corner(1.25, 0.0), corner(0.0, 1.25), corner(-1.25, 0.0)],
        Shape::Triangle => vec![corner(0.0, -1.2), corner(1.1, 0.8), corner(-1.1, 0.8)],
    };
    draw_corners(area, corners, style)
}

fn draw_corners<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    mut corners: Vec<(i32, i32)>,
    style: ShapeStyle,
) -> Result<()> {
    if style.filled {
        return area.draw(&Polygon::new(corners, style)).map_err(drawing_failed);
    }
    corners.extend(corners.first().copied());
    area.draw(&PathElement::new(corners, style)).map_err(drawing_failed)
}

fn colour(ink: Ink) -> RGBAColor {
    let of_series = |i: usize| {
        let [r, g, b] = PALETTE[i % PALETTE.len()];
        RGBColor(r, g, b)
    };
    match ink {
        Ink::Foreground => FOREGROUND.mix(1.0),
        Ink::Muted => FOREGROUND.mix(0.78),
        Ink::Grid => FOREGROUND.mix(0.13),
        Ink::Series(i) => of_series(i).mix(1.0),
        Ink::Wash(i) => of_series(i).mix(0.09),
        Ink::Noise => NOISE.mix(1.0),
        Ink::Page => PAGE.mix(1.0),
        Ink::Gain(_) | Ink::Loss(_) | Ink::Error(_) | Ink::Same => {
            heat::tint(ink).map_or(NOISE.mix(0.0), |tint| {
                let [r, g, b] = tint.rgb();
                RGBColor(r, g, b).mix(tint.opacity)
            })
        }
    }
}

fn anchored(align: Align) -> Pos {
    let horizontal = match align {
        Align::Start => HPos::Left,
        Align::Middle => HPos::Center,
        Align::End => HPos::Right,
    };
    Pos::new(horizontal, VPos::Center)
}

/// A line cut into dashes of 6 pixels with gaps of 4, measured along the line.
fn dashes(points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    const PATTERN: [f64; 2] = [6.0, 4.0];
    let Some(&first) = points.first() else { return Vec::new() };
    let (mut pieces, mut piece) = (Vec::new(), vec![first]);
    let (mut phase, mut left) = (0, PATTERN[0]);
    for pair in points.windows(2) {
        let (mut from, to) = (pair[0], pair[1]);
        loop {
            let length = (to.0 - from.0).hypot(to.1 - from.1);
            if length <= left {
                left -= length;
                piece.push(to);
                break;
            }
            let share = left / length;
            from = (from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share);
            piece.push(from);
            if phase == 0 {
                pieces.push(std::mem::take(&mut piece));
            }
            phase = 1 - phase;
            left = PATTERN[phase];
            piece = vec![from];
        }
    }
    if phase == 0 && piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// Mean of every `OVERSAMPLING`² block of an RGB image of the given width.
fn averaged(large: &[u8], width: usize) -> Vec<u8> {
    let row_bytes = width * 3;
    let area = (OVERSAMPLING * OVERSAMPLING) as u32;
    let mut small = Vec::with_capacity(large.len() / (OVERSAMPLING * OVERSAMPLING));
    for rows in large.chunks_exact(row_bytes * OVERSAMPLING) {
        let mut sums = vec![0u32; row_bytes / OVERSAMPLING];
        for row in rows.chunks_exact(row_bytes) {
            for (sum, block) in sums.chunks_exact_mut(3).zip(row.chunks_exact(3 * OVERSAMPLING)) {
                for pixel in block.chunks_exact(3) {
                    for (sum, value) in sum.iter_mut().zip(pixel) {
                        *sum += u32::from(*value);
                    }
                }
            }
        }
        small.extend(sums.into_iter().map(|sum| (sum / area) as u8));
    }
    small
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_cover_six_tenths_of_a_line() {
        let pieces = dashes(&[(0.0, 0.0), (60.0, 0.0), (60.0, 40.0)]);
        let length: f64 =
            pieces.iter().flat_map(|p| p.windows(2)).map(|w| (w[1].0 - w[0].0).hypot(w[1].1 - w[0].1)).sum();
        assert_eq!(pieces.len(), 10);
        assert!((length - 60.0).abs() < 1e-9, "{length}");
    }

    #[test]
    fn averaging_keeps_flat_colour_and_mixes_edges() {
        let white_then_black = [[255u8; 6], [0u8; 6]].concat().repeat(2);
        assert_eq!(averaged(&white_then_black, 4), [255, 255, 255, 0, 0, 0]);
        assert_eq!(averaged(&[255, 0, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0], 2), [127, 0, 0]);
    }

    #[test]
    fn text_is_measured_with_the_font() {
        assert!(text_width("iiii", 13.0) < text_width("WWWW", 13.0));
        assert_eq!(text_width("", 13.0), 0.0);
    }

    #[test]
    fn neighbouring_cells_neither_overlap_nor_gape() {
        let mut picture = Picture::new(9.0, 2.0);
        for i in 0..3 {
            let left = f64::from(i) * 3.0;
            picture.cell(Rect { left, top: 0.0, right: left + 3.0, bottom: 2.0 }, Ink::Error(8));
        }
        let mut pixels = vec![0xFF; 9 * 2 * 3];
        {
            let area = BitMapBackend::with_buffer(&mut pixels, (9, 2)).into_drawing_area();
            draw_cells(&area, &picture, 1.0).unwrap();
            area.present().unwrap();
        }
        let first = pixels[..3].to_vec();
        assert_ne!(first, [0xFF; 3], "something is drawn");
        assert!(pixels.chunks_exact(3).all(|pixel| pixel == first), "{pixels:?}");
        let svg = cells(&picture, Svg::File);
        assert_eq!(svg.matches("<path").count(), 1, "one path for a shade: {svg}");
        assert!(svg.contains("M24 0h24v16h-24z"), "{svg}");
    }
}
