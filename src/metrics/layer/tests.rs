//! Layer figures against numpy and scipy, 50-digit values, and their own laws.

use super::*;
use proptest::prelude::*;

const BASE: [f32; 12] = [1.5, -2.25, 0.125, 8.0, 0.75, 0.5, -0.25, 1.0, -3.0, 2.0, 1.0, 0.5];
const QUANT: [f32; 12] = [1.5, -2.0, 0.25, 7.5, 0.625, 0.5, -0.375, 1.0, -3.0, 2.25, 1.0, 0.75];
const INPUT: [f32; 12] = [1.0, -2.0, 0.0, 2.0, 0.5, 0.5, -0.5, 0.75, -2.5, 1.0, 1.0, 0.25];

fn report(
    width: usize,
    first: &[bool],
    input: Option<&[f32]>,
    base: &[f32],
    quant: &[f32],
) -> LayerErrorReport {
    let mut errors = LayerErrors::new();
    errors.absorb_rows(width, first, input, base, quant);
    errors.finish()
}

fn one_row(base: &[f32], quant: &[f32]) -> ErrorView {
    report(base.len(), &[false], None, base, quant).all
}

fn assert_close(value: f64, expected: f64, relative: f64) {
    assert!((value - expected).abs() <= relative * expected.abs(), "{value:e} against {expected:e}");
}

/// Expected values: numpy 2.4 and scipy 1.17 (`scipy.stats.kurtosis(fisher=False)`), by definition.
#[test]
fn three_rows_agree_with_numpy() {
    let report = report(4, &[true, false, false], Some(&INPUT), &BASE, &QUANT);
    let all = report.all;
    assert_eq!((all.tokens, all.identical, all.non_finite), (3, false, 0));
    assert_close(all.sqnr_db.unwrap(), 22.565_936_130_724_573, 1e-14);
    assert_close(all.relative_error, 0.074_422_318_134_305_86, 1e-14);
    assert_close(all.cosine_distance, 0.003_884_869_537_927_216, 1e-12);
    assert_eq!(all.max_abs_error, 0.5);
    assert_close(all.update_sqnr_db.unwrap(), 18.926_330_956_074_6, 1e-14);
    assert_close(all.base_kurtosis, 5.644_226_068_279_78, 1e-13);
    assert_close(all.quant_kurtosis, 5.289_940_320_929_072, 1e-13);
    assert_close(all.base_max_over_rms, 2.963_418_198_341_196_2, 1e-14);
    assert_close(all.quant_max_over_rms, 2.905_305_007_464_954_2, 1e-14);

    let rest = report.without_first.unwrap();
    assert_eq!(rest.tokens, 2);
    assert_close(rest.sqnr_db.unwrap(), 20.136_796_972_911_924, 1e-14);
    assert_close(rest.relative_error, 0.098_437_403_869_769_74, 1e-14);
    assert_close(rest.cosine_distance, 0.005_674_312_291_724_659, 1e-12);
    assert_eq!(rest.max_abs_error, 0.25);
    assert_close(rest.update_sqnr_db.unwrap(), 9.822_712_330_395_685, 1e-14);
    assert_close(rest.base_kurtosis, 4.386_662_573_989_655, 1e-13);
    assert_close(rest.quant_kurtosis, 4.100_452_330_908_633, 1e-13);
    assert_close(rest.base_max_over_rms, 2.113_082_175_181_497, 1e-14);
    assert_close(rest.quant_max_over_rms, 2.033_825_273_313_772, 1e-14);
}

/// Expected values: mpmath 1.4 with 50 digits. The rows are almost parallel and differ in length, where
/// 1 − Σab/(|a||b|) in f64 keeps six digits, and in f32 none.
#[test]
fn a_tiny_angle_is_resolved() {
    let base: Vec<f32> = (0..16).map(|i| 1.0 + i as f32 / 8.0).collect();
    let nudge = |i: usize, step: f32| if i.is_multiple_of(3) { step } else { 0.0 };
    let near: Vec<f32> = (0..16).map(|i| base[i] * 1.25 + nudge(i, (-13f32).exp2())).collect();
    assert_close(one_row(&base, &near).cosine_distance, 2.868_464_745_581_642e-10, 1e-10);
    let far: Vec<f32> = (0..16).map(|i| base[i] * 8.0 + nudge(i, (-11f32).exp2())).collect();
    assert_close(one_row(&base, &far).cosine_distance, 1.120_508_634_678_949_9e-10, 1e-10);
}

#[test]
fn equal_rows_have_no_error() {
    let view = report(4, &[true, false, false], Some(&INPUT), &BASE, &BASE).all;
    assert!(view.identical);
    assert_eq!((view.sqnr_db, view.update_sqnr_db), (None, None));
    assert_eq!((view.relative_error, view.cosine_distance, view.max_abs_error), (0.0, 0.0, 0.0));
    assert_eq!(view.base_kurtosis, view.quant_kurtosis);
    // The sign of a zero is no difference.
    assert!(one_row(&[0.0, 1.0], &[-0.0, 1.0]).identical);
}

#[test]
fn zero_rows_are_defined() {
    let equal = one_row(&[0.0; 3], &[0.0; 3]);
    assert!(equal.identical);
    assert_eq!((equal.relative_error, equal.cosine_distance), (0.0, 0.0));
    assert!(equal.base_kurtosis.is_nan() && equal.base_max_over_rms.is_nan());
    let appeared = one_row(&[0.0; 3], &[1.0, 0.0, 0.0]);
    assert_eq!((appeared.cosine_distance, appeared.relative_error), (1.0, f64::INFINITY));
    assert_eq!(appeared.sqnr_db, Some(f64::NEG_INFINITY));
    let vanished = one_row(&[1.0, 0.0, 0.0], &[0.0; 3]);
    assert_eq!((vanished.cosine_distance, vanished.relative_error, vanished.sqnr_db), (1.0, 1.0, Some(0.0)));
    // Opposite and orthogonal rows, for scale.
    assert_eq!(one_row(&[1.0, 0.0], &[-1.0, 0.0]).cosine_distance, 2.0);
    assert_close(one_row(&[1.0, 0.0], &[0.0, 2.0]).cosine_distance, 1.0, 1e-15);
}

#[test]
fn what_is_not_finite_is_counted_and_shown() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [4, 9] {
            let mut quant = QUANT;
            quant[at] = bad;
            for (base, quant) in [(&BASE, &quant), (&quant, &BASE)] {
                let report = report(4, &[true, false, false], Some(&INPUT), base, quant);
                for view in [report.all, report.without_first.unwrap()] {
                    assert_eq!((view.non_finite, view.identical), (1, false));
                    let figures = [
                        view.sqnr_db.unwrap(),
                        view.relative_error,
                        view.cosine_distance,
                        view.max_abs_error,
                        view.update_sqnr_db.unwrap(),
                        view.base_kurtosis,
                        view.quant_kurtosis,
                        view.base_max_over_rms,
                        view.quant_max_over_rms,
                    ];
                    assert!(figures.iter().all(|figure| figure.is_nan()), "{figures:?}");
                }
            }
        }
    }
    // Both sides broken in the same way are not identical, and both are counted.
    let mut broken = BASE;
    (broken[0], broken[1]) = (f32::INFINITY, f32::NEG_INFINITY);
    let report = report(4, &[true, false, false], None, &broken, &broken);
    assert_eq!((report.all.non_finite, report.all.identical), (4, false));
    // The other rows are sound, and say so.
    let rest = report.without_first.unwrap();
    assert_eq!((rest.non_finite, rest.identical), (0, true));
}

#[test]
fn a_broken_input_is_no_signal() {
    let mut input = INPUT;
    input[5] = f32::INFINITY;
    let view = report(4, &[false; 3], Some(&input), &BASE, &QUANT).all;
    assert!(view.update_sqnr_db.unwrap().is_nan());
    assert!(view.sqnr_db.unwrap().is_finite());
}

#[test]
fn views_without_rows_are_absent_or_empty() {
    assert_eq!(report(4, &[true; 3], None, &BASE, &QUANT).without_first, None);
    let none = LayerErrors::new().finish();
    assert_eq!((none.all.tokens, none.all.identical, none.without_first), (0, false, None));
    assert!(none.all.cosine_distance.is_nan() && none.all.relative_error.is_nan());
    assert_eq!(report(4, &[false; 3], None, &BASE, &QUANT).all.update_sqnr_db, None);
}

/// Values far from zero, where raw power sums would lose the moments: those of 0..8 (scipy: kurtosis
/// 1.7619047619047619) must not depend on an offset, nor on how they were merged.
#[test]
fn moments_survive_an_offset_and_merging() {
    for offset in [0.0, 1000.0, 65536.0] {
        let rows: Vec<f32> = (0..8).map(|i| i as f32 + offset).collect();
        assert_close(one_row(&rows, &rows).base_kurtosis, 1.761_904_761_904_761_9, 1e-12);
        for width in [1, 2, 4] {
            let flags = vec![false; 8 / width];
            let view = report(width, &flags, None, &rows, &rows).all;
            assert_close(view.base_kurtosis, 1.761_904_761_904_761_9, 1e-12);
        }
    }
}

#[test]
fn weights_agree_with_the_definition() {
    let mut errors = WeightErrors::new();
    errors.absorb(&BASE[..5], &QUANT[..5]);
    let mut rest = WeightErrors::new();
    rest.absorb(&BASE[5..], &QUANT[5..]);
    errors.merge(&rest);
    let report = errors.finish();
    assert_eq!((report.elements, report.identical, report.non_finite), (12, false, 0));
    assert_close(report.sqnr_db.unwrap(), 22.565_936_130_724_573, 1e-14);

    let mut same = WeightErrors::new();
    same.absorb(&BASE, &BASE);
    assert_eq!(
        same.finish(),
        WeightErrorReport { elements: 12, sqnr_db: None, identical: true, non_finite: 0 }
    );
    same.absorb(&[f32::NAN, 1.0], &[f32::NAN, f32::INFINITY]);
    let broken = same.finish();
    assert!(broken.sqnr_db.unwrap().is_nan());
    assert_eq!((broken.identical, broken.non_finite), (false, 3));
    assert!(!WeightErrors::new().finish().identical);
}

proptest! {
    /// Against plain f64 loops over the definition, for any width, however the rows are merged.
    #[test]
    fn agrees_with_the_definition(
        width in 1usize..40,
        pairs in proptest::collection::vec((-8f32..8.0, -0.5f32..0.5), 40..400),
        cut in 0usize..10,
    ) {
        let rows = pairs.len() / width;
        let pairs = &pairs[..rows * width];
        let base: Vec<f32> = pairs.iter().map(|(y, _)| *y).collect();
        let quant: Vec<f32> = pairs.iter().map(|(y, d)| y + d).collect();
        let flags: Vec<bool> = (0..rows).map(|row| row.is_multiple_of(7)).collect();
        let cut = cut.min(rows);
        let mut errors = LayerErrors::new();
        errors.absorb_rows(width, &flags[cut..], None, &base[cut * width..], &quant[cut * width..]);
        let mut front = LayerErrors::new();
        front.absorb_rows(width, &flags[..cut], None, &base[..cut * width], &quant[..cut * width]);
        errors.merge(&front);
        let report = errors.finish();
        let kept: Vec<usize> = (0..rows).filter(|&row| !flags[row]).collect();
        prop_assert_eq!(report.without_first.is_some(), !kept.is_empty());
        let every: Vec<usize> = (0..rows).collect();
        let views = [(Some(report.all), every), (report.without_first, kept)];
        for (view, rows) in views.into_iter().filter_map(|(view, rows)| Some((view?, rows))) {
            let mut signal = 0.0;
            let mut error = 0.0;
            let mut cosine = 0.0;
            for row in &rows {
                let of = |v: &[f32]| v[row * width..][..width].iter().copied().map(f64::from).collect();
                let (y, q): (Vec<f64>, Vec<f64>) = (of(&base), of(&quant));
                let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                signal += dot(&y, &y);
                error += y.iter().zip(&q).map(|(y, q)| (y - q).powi(2)).sum::<f64>();
                cosine += dot(&y, &q) / (dot(&y, &y).sqrt() * dot(&q, &q).sqrt());
            }
            prop_assert_eq!(view.tokens, rows.len() as u64);
            prop_assert!((view.sqnr_db.unwrap() - 10.0 * (signal / error).log10()).abs() < 1e-9);
            prop_assert!((view.relative_error - (error / signal).sqrt()).abs() < 1e-12);
            prop_assert!((view.cosine_distance - (1.0 - cosine / rows.len() as f64)).abs() < 1e-12);
        }
    }
}
