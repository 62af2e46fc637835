//! The backup repository on an object store: names, manifests, sealing, lineages, marks, leases, catalog.
//!
//! # What it is for
//!
//! A repository is a set of objects below one root, on a disk or in a bucket. This crate says what they are called, what is in them byte by byte,
//! in which order they are written, and what may be concluded from reading them. `docs/format.md` is the same in prose. The formats outlive any
//! release: fields are added, never changed, and golden objects of every released format are read forever.
//!
//! | module | idea |
//! |---|---|
//! | [`name`], [`backup_id`], [`key`], [`layers`] | names, ids, and the keys made of them: build and parse, exactly |
//! | [`canonical`], [`digest`] | how JSON objects are written and read; SHA-256 |
//! | [`marker`], [`restore_txt`], [`manifest`], [`lineage`], [`mark`], [`frames`], [`lease`] | one kind of object each |
//! | [`sign`] | minisign signatures, and whom to trust |
//! | [`seal`] | zstd frames and the age format, in parallel, both ways |
//! | [`repository`] | the order of writes, the catalog, naming a backup, how well it is proven |
//! | [`retention`] | what a policy keeps, and why: pure, deletes nothing |
//! | [`store`] | the narrow face of an object store, and the stores |
//!
//! # What it never does
//!
//! It does not talk to etcd, does not look into a snapshot, does not decide when to back up, deletes nothing by itself, and asks no clock: the time is
//! always given. It holds no private key on the way in: sealing needs public keys only.
//!
//! # Invariants
//!
//! - A backup is listed when its manifest is there, and the manifest is written last, create-only, after every object of the set was looked at.
//! - No data object is ever overwritten: each attempt has a new id. Only leases are replaced, and nothing is correct because of a lease.
//! - Every JSON object carries its own digest, every other object's digest is in a manifest, and a manifest's in its successors: a changed byte is
//!   found, without any key.
//! - Everything read is hostile: sizes, depths and counts are bounded by [`limits`]; no path is built from content; nothing panics. One damaged
//!   object is reported and hides no other.
//! - Names, ids and digests are types that can only hold their grammar; what is written parses back to itself, and nothing else parses.
//! - With trusted signers, only what they signed counts: for `latest`, lineages, proofs, pins. Trust never comes from the repository.
//! - A backup opens with `age`, `zstd` and nothing of ours, whatever is lost beside it.

pub mod backup_id;
pub mod canonical;
pub mod digest;
pub mod frames;
#[doc(hidden)]
pub mod fuzzing;
pub mod key;
pub mod layers;
pub mod lease;
pub mod limits;
pub mod lineage;
pub mod manifest;
pub mod mark;
pub mod marker;
pub mod name;
pub mod random;
pub mod repository;
pub mod restore_txt;
pub mod retention;
pub mod seal;
pub mod sign;
pub mod store;
