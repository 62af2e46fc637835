//! (being written)

mod source;

pub use source::{ReadAt, WriteAt};
