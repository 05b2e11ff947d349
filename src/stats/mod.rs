//! Estimates with intervals, from paired observations that come in clusters.
//!
//! Tokens of one document are not independent: everything here counts clusters, not tokens (Miller 2024,
//! arXiv 2411.00640). It knows nothing of models, metrics or files and imports nothing of the crate; what
//! the numbers mean is the caller's business, which must hand both models the same observations.
//! Every function is deterministic; random draws come from a seeded generator of our own.

mod binomial;
pub mod bootstrap;
pub mod cluster;
#[cfg(test)]
mod coverage_tests;
pub mod estimate;
pub mod multiplicity;
pub mod paired;
pub mod power;
pub mod proportion;
pub mod quantile;
mod random;
mod ratio;
pub mod scores;
pub mod sign_flip;

pub use bootstrap::{Bootstrap, Resampling};
pub use cluster::{ClusterSums, ClusterUnit, Clusters, clusters_of};
pub use estimate::{Estimate, IntervalMethod, MIN_CLUSTERS, clustered_t};
pub use multiplicity::holm;
pub use paired::{Flips, PairedTest, TestMethod};
pub use power::{Power, minimum_detectable_effect};
pub use proportion::{proportion, share};
pub use quantile::{percentiles, percentiles_at};
pub use scores::{PairedOutcomes, PairedScore, PairedScores, difference_of_independent};
pub use sign_flip::{SignFlip, sign_flip};
