//! The bbolt file format: read, check, edit.
//!
//! bbolt (`go.etcd.io/bbolt`) is the B+tree file in which etcd keeps its data. This crate knows the format and nothing
//! of etcd: buckets, keys and values are bytes to it.
//!
//! - [`Database`] opens a file's current state and reads it: [`Database::bucket`], [`Bucket::get`], [`Cursor`].
//! - [`Database::walk`] proves a file's whole structure and shows all items on the way, in one pass at the speed of the
//!   disk; [`Database::check`] is the same without looking.
//! - [`Edit`] changes keys of a file that exists, by appending: the state before stays intact until one page makes the
//!   new state count.
//! - [`build`] writes a fresh file from sorted keys.
//!
//! It never opens, names, locks or cuts a file: bytes come and go through [`ReadAt`] and [`WriteAt`]. It never maps
//! memory, starts threads, or writes outside [`Edit::commit`] and [`build`]. It does not reuse free pages and does not
//! merge half-empty pages; bbolt does both when it next writes.
//!
//! Invariants:
//! - Files are hostile. No file makes this crate panic, loop without end, or use memory beyond what [`limits`] names.
//!   What is damaged is named by page and by byte of the file ([`Error::Damaged`]).
//! - Only the order of bytes of little-endian machines is read ([`Error::BigEndian`]).
//! - An edit never overwrites a page that the current state reaches.
//! - What an edit or a builder leaves passes bbolt's own check, and keeps the rules bbolt relies on without checking
//!   them: a branch knows each child by exactly the child's first key, a branch has two children at least, all leaves
//!   of a tree are equally deep, and the meta page has its transaction id's parity.
//!
//! The format has no checksum over data: flipped bits in values cannot be seen here.

mod append;
mod bucket;
pub mod build;
mod cursor;
mod database;
mod edit;
mod error;
mod freelist;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
mod memory;
mod meta;
mod page;
mod page_set;
mod reader;
mod source;
mod walk;

pub use bucket::Bucket;
pub use cursor::{Cursor, Pair};
pub use database::Database;
pub use edit::Edit;
pub use error::{Error, MetaProblem, Problem};
pub use memory::Memory;
pub use meta::{Meta, PageId};
pub use source::{ReadAt, WriteAt};
pub use walk::{CheckReport, Visitor};
