//! The `meta` bucket.

use bbolt::{Database, ReadAt};

use super::{bucket, get, meta_key, parse_u64, value_error};
use crate::conf_state::{ConfState, ConfStateError};
use crate::error::{Error, ValueProblem};
use crate::id::Revision;
use crate::limits::MAX_NAME_BYTES;
use crate::row::RowKey;
use crate::version::Version;

/// What the `meta` bucket says; every field is absent when its key is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Last applied raft index.
    pub consistent_index: Option<u64>,
    /// Term of that index (3.5 and later).
    pub term: Option<u64>,
    /// Raft configuration (3.5 and later).
    pub conf_state: Option<ConfState>,
    /// Schema version (3.6 and later).
    pub storage_version: Option<Version>,
    /// Revision of the compaction begun last.
    pub scheduled_compact: Option<Revision>,
    /// Revision of the compaction completed last.
    pub finished_compact: Option<Revision>,
}

impl Meta {
    /// The compact revision a server works with that opens this file: the higher one of scheduled and finished.
    #[must_use]
    pub fn compact_revision(&self) -> Option<Revision> {
        self.scheduled_compact.max(self.finished_compact)
    }

    /// True when a compaction was begun and not completed; a server resumes it at start.
    #[must_use]
    pub fn mid_compaction(&self) -> bool {
        self.scheduled_compact > self.finished_compact
    }

    /// The version of the schema as 3.6 detects it: what is written down, else 3.5 when a term is there, else unknown (3.4).
    #[must_use]
    pub fn storage_version_guess(&self) -> Option<Version> {
        self.storage_version.or_else(|| self.term.filter(|&term| term != 0).map(|_| Version::minor(5)))
    }
}

/// Reads the `meta` bucket.
///
/// # Errors
///
/// [`Error::Value`] for the first value etcd itself could not read; [`Error::Database`].
pub fn read_meta<S: ReadAt>(database: &Database<S>) -> Result<Meta, Error> {
    Ok(Meta {
        consistent_index: value(database, meta_key::CONSISTENT_INDEX, parse_u64)?,
        term: value(database, meta_key::TERM, parse_u64)?,
        conf_state: value(database, meta_key::CONF_STATE, parse_conf_state)?,
        storage_version: value(database, meta_key::STORAGE_VERSION, parse_version)?,
        scheduled_compact: value(database, meta_key::SCHEDULED_COMPACT, parse_revision)?,
        finished_compact: value(database, meta_key::FINISHED_COMPACT, parse_revision)?,
    })
}

fn value<S: ReadAt, T>(
    database: &Database<S>,
    key: &'static [u8],
    parse: impl Fn(&[u8]) -> Result<T, ValueProblem>,
) -> Result<Option<T>, Error> {
    let Some(bytes) = get(database, bucket::META, key)? else {
        return Ok(None);
    };
    parse(&bytes).map(Some).map_err(|problem| value_error(bucket::META, key, problem))
}

fn parse_conf_state(bytes: &[u8]) -> Result<ConfState, ValueProblem> {
    ConfState::from_json(bytes).map_err(|error| match error {
        ConfStateError::TooLong(length) => ValueProblem::TooLong(length),
        ConfStateError::Json(error) => ValueProblem::Json(error.to_string()),
    })
}

/// A compaction mark; a sub revision is ignored, as etcd does.
fn parse_revision(bytes: &[u8]) -> Result<Revision, ValueProblem> {
    Ok(RowKey::parse(bytes)?.main)
}

pub(super) fn parse_version(bytes: &[u8]) -> Result<Version, ValueProblem> {
    if bytes.len() > MAX_NAME_BYTES {
        return Err(ValueProblem::TooLong(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| ValueProblem::Text)?;
    text.parse().map_err(|_| ValueProblem::Version(text.chars().take(64).collect()))
}
