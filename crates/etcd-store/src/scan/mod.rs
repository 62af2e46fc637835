//! Passes over the rows of the `key` bucket: what [`crate::inspect`] and [`crate::hash_kv`] have in common.

mod fold;
mod live;
mod rows;
mod table;

pub use rows::{Captured, Classifier, RowProblem, RowWarning};
pub(crate) use rows::{KeyRows, LastRow, Wanted, last_row};

#[cfg(test)]
mod tests;
