//! Which worked examples a sample gets: the harness's samplers, draw for draw.

use std::rc::Rc;

use super::data::{Record, Split};
use crate::suite::python_random::PythonRandom;

/// Draws worked examples, in the order of the samples that are asked (`api/samplers.py`).
pub(super) struct Sampler {
    pool: Rc<Split>,
    first_n: bool,
    random: PythonRandom,
}

impl Sampler {
    pub(super) fn new(pool: Rc<Split>, first_n: bool, seed: u64) -> Self {
        Self { pool, first_n, random: PythonRandom::new(seed) }
    }

    /// Indices in the pool of `count` examples. `asked`, where the pool may hold it, is not among them: one
    /// example more is drawn then, and all that equal it are dropped; if too few remain, the draw is repeated
    /// without them. Otherwise says what is wrong.
    pub(super) fn draw(&mut self, count: usize, asked: Option<&Record>) -> Result<Vec<usize>, String> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let records = &self.pool.records;
        let is_asked = |index: &usize| asked.is_some_and(|asked| records.get(*index) == Some(asked));
        let others = || (0..records.len()).filter(|index| !is_asked(index));
        let too_few = |wanted: usize, held: usize| {
            format!("{wanted} worked examples are wanted of {held} records in {}", self.pool.file.display())
        };
        let drawn: Vec<usize> = if self.first_n {
            others().take(count).collect()
        } else {
            let wanted = count + usize::from(asked.is_some());
            let drawn = self.random.sample_indices(records.len(), wanted);
            let drawn = drawn.ok_or_else(|| too_few(wanted, records.len()))?;
            drawn.into_iter().filter(|index| !is_asked(index)).take(count).collect()
        };
        if drawn.len() == count {
            return Ok(drawn);
        }
        let others: Vec<usize> = others().collect();
        let again = match self.first_n {
            true => None,
            false => self.random.sample_indices(others.len(), count),
        };
        let again = again.ok_or_else(|| too_few(count, others.len()))?;
        Ok(again.into_iter().filter_map(|index| others.get(index).copied()).collect())
    }
}
