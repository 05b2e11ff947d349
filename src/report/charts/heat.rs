//! Colours of heat maps: one hue over the page, stronger where more is to be seen, so that a map works on a light
//! page and on a dark one. Orange is worse and blue is better, which colour-blind readers tell apart; the strongest
//! errors go on from orange towards the colour of the text. It must not know a comparison or the drawing library.

use super::PALETTE;
use super::picture::{Align, Ink, Picture, Rect, TICK};

/// Shades of a scale.
pub(super) const STEPS: u8 = 24;
/// Opacity of the strongest shade behind a number: the number stays readable on both pages.
const BEHIND_TEXT: f64 = 0.62;
/// The share of an error scale that is hue over page; beyond it the hue darkens (on a dark page, brightens).
const PURE: f64 = 0.6;
/// How far the last shade has gone towards the colour of the text.
const DEEPEST: f64 = 0.72;
/// The colour of the text on white.
pub(super) const FOREGROUND: [u8; 3] = [0x1F, 0x23, 0x28];
const NEUTRAL: [u8; 3] = [0x80, 0x80, 0x80];

/// How a cell is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tint {
    hue: [u8; 3],
    /// What the page calls the hue.
    name: &'static str,
    /// The share of the text's colour in it.
    deep: f64,
    /// Opacity over the page.
    pub(super) opacity: f64,
}

impl Tint {
    /// The colour on white paper, before opacity.
    pub(super) fn rgb(&self) -> [u8; 3] {
        let mix = |i: usize| {
            let (hue, text) =
                (self.hue.get(i).copied().unwrap_or(0), FOREGROUND.get(i).copied().unwrap_or(0));
            (f64::from(hue) * (1.0 - self.deep) + f64::from(text) * self.deep).round() as u8
        };
        [mix(0), mix(1), mix(2)]
    }

    /// The colour of a file by itself.
    pub(super) fn hex(&self) -> String {
        let [r, g, b] = self.rgb();
        format!("#{r:02X}{g:02X}{b:02X}")
    }

    /// The colour in the words of the page.
    pub(super) fn css(&self) -> String {
        if self.deep > 0.0 {
            let share = (self.deep * 100.0).round();
            format!("color-mix(in srgb, currentColor {share}%, {})", self.name)
        } else {
            self.name.to_owned()
        }
    }
}

/// The fill of a cell; `None` for inks that fill none.
pub(super) fn tint(ink: Ink) -> Option<Tint> {
    let share = |step: u8| f64::from(step.min(STEPS - 1)) / f64::from(STEPS - 1);
    let [gain, loss, ..] = PALETTE;
    let warm = Tint { hue: loss, name: "var(--s1)", deep: 0.0, opacity: 1.0 };
    Some(match ink {
        Ink::Gain(step) => {
            Tint { hue: gain, name: "var(--s0)", deep: 0.0, opacity: BEHIND_TEXT * share(step) }
        }
        Ink::Loss(step) => Tint { opacity: BEHIND_TEXT * share(step), ..warm },
        Ink::Error(step) if share(step) <= PURE => Tint { opacity: 0.07 + 0.93 * share(step) / PURE, ..warm },
        Ink::Error(step) => Tint { deep: DEEPEST * (share(step) - PURE) / (1.0 - PURE), ..warm },
        Ink::Same => Tint { hue: NEUTRAL, name: "#808080", deep: 0.0, opacity: 0.4 },
        _ => return None,
    })
}

/// The shade for a share of a scale; shares beyond it get the outermost.
pub(super) fn step(share: f64) -> u8 {
    if share.is_nan() {
        return 0;
    }
    (share.clamp(0.0, 1.0) * f64::from(STEPS)).min(f64::from(STEPS - 1)) as u8
}

/// A strip of shades from `left` on, `width` wide, its names below at their shares of it; returns its height.
pub(super) fn strip(
    picture: &mut Picture,
    (left, top): (f64, f64),
    width: f64,
    inks: &[Ink],
    names: &[(f64, String)],
) -> f64 {
    let each = width / inks.len().max(1) as f64;
    for (i, ink) in inks.iter().enumerate() {
        let from = left + i as f64 * each;
        picture.cell(Rect { left: from, top, right: from + each, bottom: top + 12.0 }, *ink);
    }
    picture.frame(Rect { left, top, right: left + width, bottom: top + 12.0 }, Ink::Grid, 1.0);
    for (share, name) in names {
        let (at, align) = match *share {
            s if s <= 0.0 => (left, Align::Start),
            s if s >= 1.0 => (left + width, Align::End),
            s => (left + s * width, Align::Middle),
        };
        picture.text((at, top + 22.0), name, TICK, Ink::Muted, align);
    }
    34.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brightness_on_white(ink: Ink) -> f64 {
        let tint = tint(ink).unwrap();
        let over = |c: u8| f64::from(c) * tint.opacity + 255.0 * (1.0 - tint.opacity);
        let [r, g, b] = tint.rgb();
        0.2126 * over(r) + 0.7152 * over(g) + 0.0722 * over(b)
    }

    #[test]
    fn every_shade_is_darker_than_the_one_before() {
        for scale in [Ink::Gain as fn(u8) -> Ink, Ink::Loss, Ink::Error] {
            for step in 1..STEPS {
                let (before, after) =
                    (brightness_on_white(scale(step - 1)), brightness_on_white(scale(step)));
                assert!(after < before - 1.0, "{:?}: {before} {after}", scale(step));
            }
        }
        assert_eq!(tint(Ink::Gain(0)).unwrap().opacity, 0.0, "no change is the page");
    }

    #[test]
    fn shares_become_shades() {
        assert_eq!([step(-1.0), step(0.0), step(0.5), step(1.0), step(7.0)], [0, 0, 12, 23, 23]);
        assert_eq!(step(f64::NAN), 0);
    }

    #[test]
    fn text_on_the_strongest_shades_can_be_read() {
        let text = FOREGROUND.map(f64::from);
        let linear = |c: f64| {
            let c = c / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        let luminance = |c: [f64; 3]| 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
        for ink in [Ink::Gain(STEPS - 1), Ink::Loss(STEPS - 1)] {
            let tint = tint(ink).unwrap();
            let page = tint.rgb().map(|c| f64::from(c) * tint.opacity + 255.0 * (1.0 - tint.opacity));
            let contrast = (luminance(page) + 0.05) / (luminance(text) + 0.05);
            assert!(contrast > 4.5, "{ink:?}: {contrast}");
        }
    }
}
