//! A picture as a list of marks, in pixels with the origin at the top left. Charts are written as
//! pictures, so that what a chart says is plain data: one routine draws it as SVG or as PNG, and a
//! test can look at every coordinate. It must not know the drawing library or a comparison.

use super::axis::Axis;
use super::render::text_width;

/// Text sizes in pixels.
pub(super) const TITLE: f64 = 20.0;
/// Labels of series and notes.
pub(super) const LABEL: f64 = 15.5;
/// Numbers at ticks.
pub(super) const TICK: f64 = 14.0;
/// Height of one line of text with the room around it.
pub(super) const LINE: f64 = 20.0;

/// What a mark is drawn with. Colours are chosen where the picture is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Text that must be read.
    Foreground,
    /// Text and lines that explain.
    Muted,
    /// Grid lines.
    Grid,
    /// The series of the cousin with this index.
    Series(usize),
    /// A light fill of the same series.
    Wash(usize),
    /// What is not a cousin: the noise floor.
    Noise,
    /// A cell of a heat map: better by that shade, readable behind text.
    Gain(u8),
    /// Worse by that shade, readable behind text.
    Loss(u8),
    /// An error of that shade, without text on it.
    Error(u8),
    /// No error at all: no shade of any scale.
    Same,
    /// The page's own colour, to set something off from what lies below it.
    Page,
}

/// Where a text's anchor is, horizontally; vertically it is always the middle of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// The anchor is the left end.
    Start,
    /// The anchor is the centre.
    Middle,
    /// The anchor is the right end.
    End,
}

/// A dot's form; with the colour it tells more than six series apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// ●
    Circle,
    /// ■
    Square,
    /// ◆
    Diamond,
    /// ▲
    Triangle,
}

/// One thing to draw.
#[derive(Clone, Debug)]
pub(super) enum Mark {
    /// A line through points.
    Line { points: Vec<(f64, f64)>, ink: Ink, width: f64, dashed: bool },
    /// A filled polygon.
    Area { points: Vec<(f64, f64)>, ink: Ink },
    /// A dot.
    Dot { at: (f64, f64), radius: f64, ink: Ink, shape: Shape, hollow: bool },
    /// Cells of a heat map of one shade; they lie below every other mark, whatever their order.
    Cells { rects: Vec<Rect>, ink: Ink },
    /// A line of text.
    Text { at: (f64, f64), text: String, size: f64, ink: Ink, align: Align },
}

/// Marks on a surface of a given size.
#[derive(Clone, Debug)]
pub(super) struct Picture {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) marks: Vec<Mark>,
}

/// A rectangle, in pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rect {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

/// Ink and shape of the cousin with index `i`, or of the noise floor.
pub(super) fn series(index: Option<usize>) -> (Ink, Shape) {
    const SHAPES: [Shape; 4] = [Shape::Circle, Shape::Square, Shape::Diamond, Shape::Triangle];
    match index {
        Some(i) => (Ink::Series(i), SHAPES[(i / super::PALETTE.len()) % SHAPES.len()]),
        None => (Ink::Noise, Shape::Circle),
    }
}

impl Picture {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Picture { width, height, marks: Vec::new() }
    }

    pub(super) fn line(&mut self, points: Vec<(f64, f64)>, ink: Ink, width: f64, dashed: bool) {
        if points.len() > 1 {
            self.marks.push(Mark::Line { points, ink, width, dashed });
        }
    }

    pub(super) fn area(&mut self, points: Vec<(f64, f64)>, ink: Ink) {
        if points.len() > 2 {
            self.marks.push(Mark::Area { points, ink });
        }
    }

    /// A cell of a heat map, together with all others of its shade.
    pub(super) fn cell(&mut self, rect: Rect, wanted: Ink) {
        let same = self.marks.iter_mut().find_map(|mark| match mark {
            Mark::Cells { rects, ink } if *ink == wanted => Some(rects),
            _ => None,
        });
        match same {
            Some(rects) => rects.push(rect),
            None => self.marks.push(Mark::Cells { rects: vec![rect], ink: wanted }),
        }
    }

    /// The outline of a rectangle.
    pub(super) fn frame(&mut self, rect: Rect, ink: Ink, width: f64) {
        let Rect { left, top, right, bottom } = rect;
        let corners = vec![(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
        self.line(corners, ink, width, false);
    }

    /// A frame that is seen on any colour: the text's, set off by the page's.
    pub(super) fn frame_on_colour(&mut self, rect: Rect) {
        self.frame(rect, Ink::Page, 5.0);
        self.frame(rect, Ink::Foreground, 2.0);
    }

    pub(super) fn dot(&mut self, at: (f64, f64), radius: f64, (ink, shape): (Ink, Shape), hollow: bool) {
        self.marks.push(Mark::Dot { at, radius, ink, shape, hollow });
    }

    pub(super) fn text(
        &mut self,
        at: (f64, f64),
        text: impl Into<String>,
        size: f64,
        ink: Ink,
        align: Align,
    ) {
        let text = text.into();
        if !text.trim().is_empty() {
            self.marks.push(Mark::Text { at, text, size, ink, align });
        }
    }

    /// A title on the first line; returns the height that it took.
    pub(super) fn title(&mut self, title: &str, subtitle: &str) -> f64 {
        self.text(
            (16.0, 22.0),
            fitted(title, TITLE, self.width - 32.0),
            TITLE,
            Ink::Foreground,
            Align::Start,
        );
        self.text((16.0, 46.0), fitted(subtitle, TICK, self.width - 32.0), TICK, Ink::Muted, Align::Start);
        64.0
    }

    /// Names of series in rows from `top` on, each behind its swatch; returns the height that they took.
    pub(super) fn legend(&mut self, top: f64, entries: &[(String, (Ink, Shape), bool)]) -> f64 {
        const SWATCH: f64 = 26.0;
        let (left, right) = (16.0, self.width - 8.0);
        let (mut x, mut y) = (left, top + LINE / 2.0);
        for (name, style, dashed) in entries {
            let name = fitted(name, LABEL, (right - left - SWATCH).min(280.0));
            let width = SWATCH + text_width(&name, LABEL) + 16.0;
            if x + width > right && x > left {
                (x, y) = (left, y + LINE + 2.0);
            }
            self.line(vec![(x, y), (x + 20.0, y)], style.0, 2.0, *dashed);
            self.dot((x + 10.0, y), 4.0, *style, false);
            self.text((x + SWATCH, y), name, LABEL, Ink::Foreground, Align::Start);
            x += width;
        }
        if entries.is_empty() { 0.0 } else { y - top + LINE / 2.0 + 8.0 }
    }

    /// Horizontal grid lines with their numbers to the left of the plot.
    pub(super) fn rows(&mut self, plot: Rect, axis: &Axis, wanted: usize, label: impl Fn(f64) -> String) {
        for tick in axis.ticks(wanted) {
            if let Some(y) = axis.place(tick) {
                self.line(vec![(plot.left, y), (plot.right, y)], Ink::Grid, 1.0, false);
                self.text((plot.left - 8.0, y), label(tick), TICK, Ink::Muted, Align::End);
            }
        }
    }

    /// Vertical grid lines with their numbers below the plot; a number that would touch the one before
    /// it is left out.
    pub(super) fn columns(&mut self, plot: Rect, axis: &Axis, wanted: usize, label: impl Fn(f64) -> String) {
        let mut free_from = f64::NEG_INFINITY;
        for tick in axis.ticks(wanted) {
            let Some(x) = axis.place(tick) else { continue };
            self.line(vec![(x, plot.top), (x, plot.bottom)], Ink::Grid, 1.0, false);
            let text = label(tick);
            let half = text_width(&text, TICK) / 2.0;
            if x - half >= free_from && x + half <= self.width {
                self.text((x, plot.bottom + 15.0), text, TICK, Ink::Muted, Align::Middle);
                free_from = x + half + 6.0;
            }
        }
        self.line(vec![(plot.left, plot.bottom), (plot.right, plot.bottom)], Ink::Muted, 1.0, false);
    }

    /// What the axes show: the vertical one above the plot at its left, the horizontal one below it.
    pub(super) fn axis_names(&mut self, plot: Rect, vertical: &str, horizontal: &str) {
        let room = self.width - 16.0;
        self.text((16.0, plot.top - 18.0), fitted(vertical, TICK, room), TICK, Ink::Muted, Align::Start);
        let horizontal = fitted(horizontal, TICK, room);
        // Below the middle of the plot, but within the picture.
        let half = text_width(&horizontal, TICK) / 2.0;
        let x = ((plot.left + plot.right) / 2.0).min(self.width - 8.0 - half).max(8.0 + half);
        self.text((x, plot.bottom + 36.0), horizontal, TICK, Ink::Muted, Align::Middle);
    }

    /// An interval as a bar with caps, along x (`horizontal`) or along y.
    pub(super) fn bar(&mut self, (low, high): (f64, f64), across: f64, ink: Ink, horizontal: bool) {
        let turn = |along: f64, across: f64| if horizontal { (along, across) } else { (across, along) };
        self.line(vec![turn(low, across), turn(high, across)], ink, 1.5, false);
        for end in [low, high] {
            self.line(vec![turn(end, across - 3.0), turn(end, across + 3.0)], ink, 1.5, false);
        }
    }

    /// One sentence in the middle, where there is nothing to draw.
    pub(super) fn instead(&mut self, sentence: &str) {
        let at = (self.width / 2.0, self.height / 2.0);
        self.text(at, fitted(sentence, LABEL, self.width - 16.0), LABEL, Ink::Muted, Align::Middle);
    }
}

/// `text` shortened in the middle until it is at most `room` pixels wide.
pub(super) fn fitted(text: &str, size: f64, room: f64) -> String {
    // No picture has room for more, and every step below measures the whole text.
    const MOST: usize = 240;
    let mut fitted = crate::report::format::shortened(text, MOST);
    let mut columns = MOST;
    while columns > 1 && text_width(&fitted, size) > room {
        columns = (columns - 1).min(unicode_width::UnicodeWidthStr::width(fitted.as_str()).saturating_sub(1));
        fitted = crate::report::format::shortened(text, columns);
    }
    fitted
}

/// A name that fits: from a separator on, where the whole does not, since cousins differ at their ends.
pub(super) fn end_of(name: &str, size: f64, room: f64) -> String {
    let ends = name.char_indices().filter(|(_, c)| "-_/ ".contains(*c)).map(|(i, c)| i + c.len_utf8());
    let ends = ends.filter_map(|from| name.get(from..)).filter(|end| end.chars().count() > 2);
    let candidates = std::iter::once(name.to_owned()).chain(ends.take(24).map(|end| format!("…{end}")));
    let mut fitting = candidates.filter(|text| text_width(text, size) <= room);
    fitting.next().unwrap_or_else(|| fitted(name, size, room))
}
