//! (being written)

pub mod id;
