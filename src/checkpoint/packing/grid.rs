//! The scales of a packed matrix: a small matrix of numbers that every weight is multiplied with.
//!
//! A grid is checked for shape and type when it is made. Its values are checked where they are read, row by row, so
//! that opening a checkpoint touches no scales; an error names tensor, row and column. Which values are sound depends
//! on the packing and is said when the grid is made: a zero scale turns weights into zeros, a NaN into NaNs, and no
//! quantizer writes either, so both mean a damaged file.

use std::ops::Range;

use safetensors::Dtype;

use super::TensorView;
use crate::{
    checkpoint::{encoding::Encoding, weight::StoredBytes},
    error::{Error, Result},
    minifloat,
};

/// How the numbers of a grid are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Number {
    /// A float of 16 bits or more.
    Float(Encoding),
    /// One byte each: the value of an E4M3 float.
    E4m3,
    /// One byte each: a power of two.
    E8m0,
}

impl Number {
    /// What an element type means where a scale is expected; bytes without a type of their own are taken as E8M0.
    pub(in crate::checkpoint) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F8_E4M3 => Some(Number::E4m3),
            Dtype::U8 | Dtype::F8_E8M0 => Some(Number::E8m0),
            _ => Encoding::from_safetensors(dtype).map(Number::Float),
        }
    }

    fn bytes(self) -> usize {
        match self {
            Number::Float(encoding) => encoding.block_bytes(),
            Number::E4m3 | Number::E8m0 => 1,
        }
    }
}

/// The values that a grid may hold; all must be finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::checkpoint) enum Sound {
    /// Greater than zero.
    Positive,
    /// Of either sign, not zero.
    NotZero,
    /// Any.
    Finite,
}

impl Sound {
    fn wording(self) -> &'static str {
        match self {
            Sound::Positive => "a positive number",
            Sound::NotZero => "a number that is not zero",
            Sound::Finite => "a finite number",
        }
    }

    #[inline(always)]
    fn holds(self, value: f32) -> bool {
        value.is_finite()
            & match self {
                Sound::Positive => value > 0.0,
                Sound::NotZero => value != 0.0,
                Sound::Finite => true,
            }
    }

    /// Without an early exit, so that it vectorizes.
    fn all(self, values: &[f32]) -> bool {
        match self {
            Sound::Positive => {
                values.iter().fold(true, |fine, value| fine & (*value > 0.0) & (*value < f32::INFINITY))
            }
            _ => values.iter().fold(true, |fine, value| fine & self.holds(*value)),
        }
    }
}

/// A second factor of every number in a grid, one for the whole tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::checkpoint) enum Factor {
    /// None.
    One,
    /// number · factor: ModelOpt's `weight_scale_2`.
    Times(f32),
    /// number / factor: compressed-tensors' `weight_global_scale`.
    Over(f32),
}

/// Numbers in rows and columns.
#[derive(Clone, Debug)]
pub(in crate::checkpoint) struct Grid {
    tensor: String,
    stored: StoredBytes,
    number: Number,
    columns: usize,
    sound: Sound,
    factor: Factor,
}

const DAMAGED: &str =
    "the file is damaged or its quantization failed: download it again, or quantize the original again";

impl Grid {
    /// Reads `tensor` as `[rows, columns]`; axes of length one may be left out or added.
    ///
    /// # Errors
    /// Another shape, or an element type that is no scale.
    pub(in crate::checkpoint) fn new(
        tensor: &TensorView,
        rows: usize,
        columns: usize,
        sound: Sound,
    ) -> Result<Self> {
        let Some(number) = Number::of(tensor.dtype) else {
            return Err(tensor.problem(
                format!("is of type {:?}, expected a float or an E8M0 byte", tensor.dtype),
                "the file is written by a tool that packs in another way",
            ));
        };
        Self::of(tensor, number, rows, columns, sound)
    }

    /// As [`Grid::new`], where the element type alone does not say how the numbers are stored.
    pub(in crate::checkpoint) fn of(
        tensor: &TensorView,
        number: Number,
        rows: usize,
        columns: usize,
        sound: Sound,
    ) -> Result<Self> {
        if !is_grid(tensor.shape, rows, columns) {
            return Err(tensor.problem(
                format!("has shape {:?}, expected {:?}", tensor.shape, [rows, columns]),
                "scales and weights belong to different groupings: the file is damaged, or written by a tool that \
                 packs in another way",
            ));
        }
        let stored = tensor.stored();
        let fits = rows.checked_mul(columns).and_then(|n| n.checked_mul(number.bytes()));
        if fits != Some(stored.bytes().len()) {
            let problem =
                format!("holds {} bytes, which are not {rows} × {columns} numbers", stored.bytes().len());
            return Err(tensor.problem(problem, DAMAGED));
        }
        Ok(Self { tensor: tensor.name.to_owned(), stored, number, columns, sound, factor: Factor::One })
    }

    /// With a factor for the whole tensor.
    pub(in crate::checkpoint) fn with(self, factor: Factor) -> Self {
        Self { factor, ..self }
    }

    /// Reads some columns of a row.
    ///
    /// # Errors
    /// A value that is not sound, by row and column.
    pub(in crate::checkpoint) fn read(
        &self,
        row: usize,
        columns: Range<usize>,
        out: &mut [f32],
    ) -> Result<()> {
        let first = row * self.columns + columns.start;
        let size = self.number.bytes();
        let bytes = &self.stored.bytes()[first * size..(first + columns.len()) * size];
        match self.number {
            Number::Float(encoding) => encoding
                .decode(bytes, out)
                .map_err(|mismatch| Error::argument(mismatch.to_string(), "report this as a bug of qeval"))?,
            Number::E4m3 => {
                for (out, code) in out.iter_mut().zip(bytes) {
                    *out = minifloat::E4M3[usize::from(*code)];
                }
            }
            Number::E8m0 => {
                for (out, code) in out.iter_mut().zip(bytes) {
                    *out = minifloat::e8m0(*code);
                }
            }
        }
        match self.factor {
            Factor::One => {}
            Factor::Times(factor) => out.iter_mut().for_each(|value| *value *= factor),
            Factor::Over(factor) => out.iter_mut().for_each(|value| *value /= factor),
        }
        if self.sound.all(out) {
            return Ok(());
        }
        let at = out.iter().position(|value| !self.sound.holds(*value)).unwrap_or(0);
        let with = match self.factor {
            Factor::One => "",
            _ => " with its factor",
        };
        let problem = format!(
            "row {row}, column {} is {}{with}, expected {}",
            columns.start + at,
            out[at],
            self.sound.wording()
        );
        Err(Error::tensor(self.stored.file.path(), &self.tensor, problem, DAMAGED))
    }

    /// Hands mapped pages back to the system.
    pub(in crate::checkpoint) fn release(&self) {
        self.stored.release();
    }
}

/// Whether a shape is `[rows, columns]`; axes of length one may be left out or added.
pub(in crate::checkpoint) fn is_grid(shape: &[usize], rows: usize, columns: usize) -> bool {
    let longer = |axis: &&usize| **axis != 1;
    shape.iter().filter(longer).eq([rows, columns].iter().filter(longer))
}

/// The one number of a tensor.
///
/// # Errors
/// More than one, or one that is not sound.
pub(in crate::checkpoint) fn scalar(tensor: &TensorView, sound: Sound) -> Result<f32> {
    let mut value = [0.0];
    Grid::new(tensor, 1, 1, sound)?.read(0, 0..1, &mut value)?;
    Ok(value[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::packing::{Tensors, fixture::Fixture};

    fn read(
        fixture: &Fixture,
        rows: usize,
        columns: usize,
        sound: Sound,
        factor: Factor,
    ) -> Result<Vec<f32>> {
        let opened = fixture.open();
        let tensors: Tensors = opened.tensors();
        let grid = Grid::new(&tensors.require("s", "it is read")?, rows, columns, sound)?.with(factor);
        let mut values = vec![0.0; rows * columns];
        for (row, values) in values.chunks_mut(columns).enumerate() {
            // Column by column and at once.
            grid.read(row, 0..columns, values)?;
            for (column, value) in values.iter().enumerate() {
                let mut one = [0.0];
                grid.read(row, column..column + 1, &mut one)?;
                assert_eq!(one[0].to_bits(), value.to_bits());
            }
        }
        Ok(values)
    }

    #[test]
    fn every_number_is_read() {
        let wanted = [0.5f32, 2.0, 1.5, 0.25, 4.0, 448.0];
        let with = |dtype, bytes: Vec<u8>| Fixture::default().tensor("s", dtype, &[2, 3], bytes);
        let f16 = wanted.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        let f64 = wanted.iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
        // Sign, four bits of exponent with bias 7, three of mantissa.
        let e4m3 = vec![0b0011_0000, 0b0100_0000, 0b0011_1100, 0b0010_1000, 0b0100_1000, 0b0111_1110];
        for fixture in [
            with(Dtype::F16, f16),
            with(Dtype::F64, f64),
            with(Dtype::F8_E4M3, e4m3),
            Fixture::default().floats("s", &[2, 1, 3, 1], &wanted),
        ] {
            assert_eq!(read(&fixture, 2, 3, Sound::Positive, Factor::One).unwrap(), wanted);
            let half = wanted.map(|x| x / 2.0);
            assert_eq!(read(&fixture, 2, 3, Sound::Positive, Factor::Times(0.5)).unwrap(), half);
            assert_eq!(read(&fixture, 2, 3, Sound::Positive, Factor::Over(2.0)).unwrap(), half);
        }
        for dtype in [Dtype::U8, Dtype::F8_E8M0] {
            let powers = Fixture::default().tensor("s", dtype, &[4], [126, 127, 130, 0]);
            let values = read(&powers, 4, 1, Sound::Positive, Factor::One).unwrap();
            assert_eq!(values, [0.5, 1.0, 8.0, 2f32.powi(-127)]);
        }
    }

    #[test]
    fn unsound_numbers_are_named_by_place() {
        let (one, not) = (Factor::One, "a number that is not zero");
        for (value, factor, sound, words) in [
            (0.0, one, Sound::Positive, Some("is 0, expected a positive number".to_owned())),
            (-0.5, one, Sound::Positive, Some("is -0.5, expected a positive number".to_owned())),
            (f32::NAN, one, Sound::Positive, Some("is NaN, expected a positive number".to_owned())),
            (f32::INFINITY, one, Sound::Positive, Some("is inf, expected a positive number".to_owned())),
            (0.0, one, Sound::NotZero, Some(format!("is 0, expected {not}"))),
            (f32::NAN, one, Sound::NotZero, Some(format!("is NaN, expected {not}"))),
            (-0.5, one, Sound::NotZero, None),
            (0.0, one, Sound::Finite, None),
            (f32::NEG_INFINITY, one, Sound::Finite, Some("is -inf, expected a finite number".to_owned())),
            // A product that vanishes is as bad as a zero.
            (
                1e-30,
                Factor::Times(1e-30),
                Sound::Positive,
                Some("is 0 with its factor, expected a positive number".to_owned()),
            ),
            (
                1e30,
                Factor::Over(1e-30),
                Sound::Positive,
                Some("is inf with its factor, expected a positive number".to_owned()),
            ),
        ] {
            let fixture = Fixture::default().floats("s", &[2, 2], &[1.0, 1.0, 1.0, value]);
            let found = read(&fixture, 2, 2, sound, factor).err().map(|error| error.to_string());
            let words = words.map(|words| format!("tensor `s`: row 1, column 1 {words}"));
            assert_eq!(found.is_some(), words.is_some(), "{value} {sound:?}: {found:?}");
            if let (Some(found), Some(words)) = (found, words) {
                assert!(found.ends_with(&words), "{found} against {words}");
            }
        }
    }

    #[test]
    fn other_shapes_and_types_are_refused() {
        let fixture = Fixture::default().floats("s", &[2, 3], &[1.0; 6]);
        for (rows, columns) in [(3, 2), (6, 1), (2, 2), (1, 1), (usize::MAX, 3)] {
            let error = read(&fixture, rows.min(9), columns, Sound::Positive, Factor::One).unwrap_err();
            assert!(error.to_string().contains("has shape [2, 3], expected"), "{error}");
        }
        let whole = Fixture::default().tensor("s", Dtype::I8, &[1], [1]);
        let error = read(&whole, 1, 1, Sound::Positive, Factor::One).unwrap_err();
        assert!(error.to_string().contains("is of type I8, expected a float"), "{error}");
    }
}
