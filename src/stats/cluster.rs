//! Which observations belong together, and their sums per cluster.
//!
//! A cluster is a document. With fewer than 20 documents, each contiguous window of a document is one: a
//! block bootstrap with the windows as non-overlapping blocks (Carlstein 1986, doi 10.1214/aos/1176350057).
//! Windows are not merged into longer blocks: what correlation reaches across their borders is not seen, and
//! [`ClusterUnit`] says so to the reader. Everything later needs only the sums, so it knows no observation.

use std::collections::HashMap;

/// From this many documents on, documents are the clusters.
pub const MIN_DOCUMENTS: usize = 20;

/// What the clusters of a sample are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterUnit {
    /// One document each.
    Document,
    /// One contiguous window of a document each, there being fewer than [`MIN_DOCUMENTS`] documents.
    Window,
}

/// A cluster for each observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    /// The cluster of each observation, 0..count, numbered by first appearance.
    pub of: Vec<u32>,
    /// The number of clusters.
    pub count: usize,
    /// What they are.
    pub unit: ClusterUnit,
}

/// The clusters of observations that lie in the given documents, and there in the given windows.
///
/// Windows may be numbered anew in each document: a window is known by both numbers. O(n).
///
/// # Panics
/// If the two slices differ in length.
pub fn clusters_of(documents: &[u32], windows: &[u32]) -> Clusters {
    assert_eq!(documents.len(), windows.len(), "a document and a window for each observation");
    let by_document = number(documents.iter().map(|&document| (document, 0)));
    if by_document.1 >= MIN_DOCUMENTS {
        return Clusters { of: by_document.0, count: by_document.1, unit: ClusterUnit::Document };
    }
    let (of, count) = number(documents.iter().copied().zip(windows.iter().copied()));
    Clusters { of, count, unit: ClusterUnit::Window }
}

/// Numbers keys by first appearance; looks up only where the key changes, for they come in long runs.
fn number(keys: impl Iterator<Item = (u32, u32)>) -> (Vec<u32>, usize) {
    let mut numbers: HashMap<(u32, u32), u32> = HashMap::new();
    let mut last = None;
    let of = keys
        .map(|key| match last {
            Some((last_key, number)) if last_key == key => number,
            _ => {
                let fresh = numbers.len() as u32;
                let number = *numbers.entry(key).or_insert(fresh);
                last = Some((key, number));
                number
            }
        })
        .collect();
    (of, numbers.len())
}

/// Per cluster, the two sums of a ratio Σ numerators / Σ denominators; for a mean the denominator counts.
///
/// A mean over tokens, bits per byte (denominator: bytes), a share, a paired ratio: all are this.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterSums {
    sums: Vec<[f64; 2]>,
    observations: u64,
}

impl ClusterSums {
    /// Nothing yet, for clusters 0..count.
    pub fn new(count: usize) -> Self {
        Self { sums: vec![[0.0; 2]; count], observations: 0 }
    }

    /// Sums that were made before, numerator and denominator per cluster, of so many observations.
    pub fn of_sums(sums: Vec<[f64; 2]>, observations: u64) -> Self {
        Self { sums, observations }
    }

    /// The sums for the mean of `values`, each in the cluster at the same place. NaN is summed like any
    /// other value, and makes the estimate NaN.
    ///
    /// # Panics
    /// If the two slices differ in length.
    pub fn of_mean(clusters: &[u32], values: &[f64]) -> Self {
        assert_eq!(clusters.len(), values.len(), "a cluster for each value");
        let mut sums = Self::default();
        for (&cluster, &value) in clusters.iter().zip(values) {
            sums.add(cluster, value, 1.0);
        }
        sums
    }

    /// Adds one observation. Clusters beyond those known so far are made as needed.
    pub fn add(&mut self, cluster: u32, numerator: f64, denominator: f64) {
        let at = cluster as usize;
        if at >= self.sums.len() {
            self.sums.resize(at + 1, [0.0; 2]);
        }
        self.sums[at][0] += numerator;
        self.sums[at][1] += denominator;
        self.observations += 1;
    }

    /// Observations added.
    pub fn observations(&self) -> u64 {
        self.observations
    }

    /// Numerator and denominator of each cluster that has any: those without an observation (of a bucket,
    /// say) are not part of the sample.
    pub(super) fn occupied(&self) -> Vec<[f64; 2]> {
        self.sums.iter().copied().filter(|&sums| sums != [0.0; 2]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_documents_are_the_clusters() {
        let documents: Vec<u32> = (0..60).map(|i| 100 - i / 3).collect();
        let windows: Vec<u32> = (0..60).map(|i| i % 3).collect();
        let clusters = clusters_of(&documents, &windows);
        assert_eq!((clusters.count, clusters.unit), (20, ClusterUnit::Document));
        assert_eq!(clusters.of, (0..60).map(|i| i / 3).collect::<Vec<u32>>());
    }

    #[test]
    fn few_documents_are_cut_into_windows() {
        let documents: Vec<u32> = (0..57).map(|i| i / 3).collect();
        let windows: Vec<u32> = (0..57).map(|i| i % 3).collect();
        let clusters = clusters_of(&documents, &windows);
        assert_eq!((clusters.count, clusters.unit), (57, ClusterUnit::Window));
        assert_eq!(clusters.of, (0..57).collect::<Vec<u32>>());
    }

    #[test]
    fn a_cluster_may_come_back() {
        let clusters = clusters_of(&[1, 1, 2, 1], &[0, 0, 0, 0]);
        assert_eq!((clusters.of, clusters.count), (vec![0, 0, 1, 0], 2));
        assert_eq!(clusters_of(&[], &[]).count, 0);
    }

    #[test]
    fn sums_are_per_cluster() {
        let sums = ClusterSums::of_mean(&[0, 3, 0, 3], &[1.0, 2.0, 3.0, -2.0]);
        assert_eq!(sums.observations(), 4);
        assert_eq!(sums.occupied(), vec![[4.0, 2.0], [0.0, 2.0]]);
        assert_eq!(ClusterSums::new(3).occupied(), Vec::<[f64; 2]>::new());
    }
}
