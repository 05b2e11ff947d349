//! STUB
use crate::{
    checkpoint::Weight,
    error::{Error, Result},
};
#[derive(Clone, Debug)]
pub struct Simulation;
impl Simulation {
    pub fn parse(text: &str) -> Result<Self> {
        Err(Error::argument(text, "x"))
    }
    pub fn check_matched(&self, _: &[String]) -> Result<()> {
        Ok(())
    }
    pub fn apply(&self, weight: Weight) -> Result<Weight> {
        Ok(weight)
    }
}
