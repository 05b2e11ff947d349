//! Axes: from data to pixels, and where the ticks go. Linear steps are 1, 2 or 5 times a power of
//! ten; logarithmic ticks are powers of ten, with 2 and 5 between them where there is room.
//! It must not know a chart, a colour or the drawing library.

/// How distances on an axis relate to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Equal differences are equally far apart.
    Linear,
    /// Equal ratios are equally far apart; only positive values have a place.
    Log,
}

/// One axis: the range of values and the pixels of its two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis that shows all `values` that have a place on it, with `margin` (a share of the range)
    /// beyond both ends. Without any such value it shows 0 to 1 (or 0.1 to 1).
    pub(super) fn around(scale: Scale, values: impl IntoIterator<Item = f64>, margin: f64) -> Self {
        let places = values.into_iter().filter(|&v| has_place(scale, v)).map(|v| forward(scale, v));
        let (low, high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let (low, high) = match (low.is_finite() && high.is_finite(), scale) {
            (true, _) => (low, high),
            (false, Scale::Linear) => (0.0, 1.0),
            (false, Scale::Log) => (-1.0, 0.0),
        };
        // A single value still needs a range around it: half a decade, or a tenth of itself.
        let least = match scale {
            Scale::Log => 0.5,
            Scale::Linear => (low.abs().max(high.abs()) * 0.1).max(1e-3),
        };
        let pad = ((high - low) * margin).max((least - (high - low)) / 2.0).max(0.0);
        Axis { scale, low: low - pad, high: high + pad, from: 0.0, to: 1.0 }
    }

    /// The same axis from pixel `from` (its low end) to pixel `to`.
    pub(super) fn onto(self, from: f64, to: f64) -> Self {
        Axis { from, to, ..self }
    }

    /// The pixel of `value`; None if it has no place (NaN, infinite, not positive on a logarithmic axis).
    /// Values beyond the range land on its end.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        has_place(self.scale, value).then(|| {
            let share = (forward(self.scale, value) - self.low) / (self.high - self.low);
            self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
        })
    }

    /// About `wanted` round values within the range, ascending.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        let wanted = wanted.max(2) as f64;
        match self.scale {
            Scale::Linear => linear_ticks(self.low, self.high, wanted),
            Scale::Log => log_ticks(self.low, self.high, wanted),
        }
    }
}

fn has_place(scale: Scale, value: f64) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

fn forward(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
    }
}

fn linear_ticks(low: f64, high: f64, wanted: f64) -> Vec<f64> {
    let step = round_step((high - low) / wanted);
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    if !(step > 0.0 && (last - first) <= 100.0) {
        return Vec::new();
    }
    (0..=(last - first) as i64).map(|i| (first + i as f64) * step).collect()
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| f * power >= step * 0.999).unwrap_or(10.0);
    factor * power
}

fn log_ticks(low: f64, high: f64, wanted: f64) -> Vec<f64> {
    let between: &[f64] = match high - low {
        decades if decades * 3.0 <= wanted => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let every = ((high - low) / wanted).ceil().max(1.0) as i32;
    // A range that holds no power of ten and is too wide for 1-2-5 cannot be: one decade has at most three.
    (low.floor() as i32..=high.ceil() as i32)
        .filter(|decade| decade.rem_euclid(every) == 0)
        .flat_map(|decade| between.iter().map(move |f| f * 10f64.powi(decade)))
        .filter(|tick| (low - 1e-9..=high + 1e-9).contains(&tick.log10()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_ticks_are_round() {
        let axis = Axis::around(Scale::Linear, [0.0, 10.0], 0.0);
        assert_eq!(axis.ticks(5), vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        let axis = Axis::around(Scale::Linear, [-0.37, 2.9], 0.0);
        assert_eq!(axis.ticks(4), vec![0.0, 1.0, 2.0]);
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten() {
        let axis = Axis::around(Scale::Log, [1e-5, 1.0], 0.0);
        assert_eq!(axis.ticks(6), vec![1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]);
        assert!(axis.ticks(3).len() <= 3);
        let axis = Axis::around(Scale::Log, [0.01, 0.1], 0.0);
        assert_eq!(axis.ticks(6), vec![0.01, 0.02, 0.05, 0.1]);
    }

    #[test]
    fn places_are_linear_in_the_scale() {
        let axis = Axis::around(Scale::Log, [0.01, 1.0], 0.0).onto(100.0, 0.0);
        assert_eq!(axis.place(0.1), Some(50.0));
        assert_eq!(axis.place(0.0), None);
        assert_eq!(axis.place(f64::NAN), None);
        assert_eq!(axis.place(100.0), Some(0.0), "beyond the end lands on the end");
    }

    #[test]
    fn one_value_or_none_still_has_a_range() {
        for scale in [Scale::Linear, Scale::Log] {
            for values in [vec![], vec![0.0], vec![3.0], vec![3.0, 3.0], vec![f64::NAN], vec![1e300, 1e-300]]
            {
                let axis = Axis::around(scale, values.clone(), 0.05).onto(0.0, 100.0);
                assert!(axis.low < axis.high, "{scale:?} {values:?}");
                assert!(axis.ticks(5).len() <= 20, "{scale:?} {values:?}");
                assert!(axis.ticks(5).iter().all(|&t| axis.place(t).is_some()));
            }
        }
    }
}
