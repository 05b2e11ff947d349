//! How long things take, told to whoever listens.
//!
//! The library only reports work done; `cli` draws it. Silence is a listener too.

/// A listener for the progress of one long operation at a time.
pub trait Progress: Sync {
    /// A stage begins; `total` units of work will be reported.
    fn start(&self, what: &str, total: u64);
    /// `units` more are done.
    fn advance(&self, units: u64);
    /// The stage is over.
    fn finish(&self);
}

/// Nobody listens.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _what: &str, _total: u64) {}
    fn advance(&self, _units: u64) {}
    fn finish(&self) {}
}
