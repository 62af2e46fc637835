//! Passes over the rows of the `key` bucket: what [`crate::inspect`], [`crate::hash_kv`] and [`crate::usage`] have in common.

mod fold;
mod live;
mod rows;
mod table;

pub(crate) use live::Live;
pub use rows::{Captured, Classifier, RowProblem, RowWarning};
pub(crate) use rows::{KeyRows, LastRow, Wanted, decode, last_row};
pub(crate) use table::{Fingerprint, Fingerprints, Latest, Partition};

#[cfg(test)]
mod tests;
