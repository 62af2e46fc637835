//! The `members`, `members_removed` and `cluster` buckets.

use bbolt::{Database, ReadAt};
use serde::Deserialize;

use super::meta::parse_version;
use super::{bucket, cluster_key, for_each, get, value_error};
use crate::error::{Error, ValueProblem};
use crate::id::MemberId;
use crate::limits::{MAX_JSON_BYTES, MAX_MEMBERS, MAX_NAME_BYTES};
use crate::member::{MemberError, MemberRecord};
use crate::version::Version;

/// Reads the members. On 3.4 the list is written and never read by the server, so it may be stale.
///
/// # Errors
///
/// [`Error::Value`] for a member that cannot be read or whose id is not its key's; [`Error::TooMany`].
pub fn read_members<S: ReadAt>(database: &Database<S>) -> Result<Vec<MemberRecord>, Error> {
    let mut members = Vec::new();
    for_each(database, bucket::MEMBERS, |key, value| {
        if members.len() == MAX_MEMBERS {
            return Err(Error::TooMany { bucket: bucket::MEMBERS, limit: MAX_MEMBERS as u64 });
        }
        let id = parse_member_key(bucket::MEMBERS, key)?;
        let member = MemberRecord::from_json(value).map_err(|error| {
            let problem = match error {
                MemberError::TooLong(length) => ValueProblem::TooLong(length),
                MemberError::Json(error) => ValueProblem::Json(error.to_string()),
            };
            value_error(bucket::MEMBERS, key, problem)
        })?;
        if member.id != id {
            return Err(value_error(bucket::MEMBERS, key, ValueProblem::OtherId(member.id.to_string())));
        }
        members.push(member);
        Ok(true)
    })?;
    Ok(members)
}

/// Reads the ids of removed members.
///
/// # Errors
///
/// [`Error::Value`] for a key that is no id; [`Error::TooMany`].
pub fn read_removed_members<S: ReadAt>(database: &Database<S>) -> Result<Vec<MemberId>, Error> {
    let mut removed = Vec::new();
    for_each(database, bucket::MEMBERS_REMOVED, |key, _| {
        if removed.len() == MAX_MEMBERS {
            return Err(Error::TooMany { bucket: bucket::MEMBERS_REMOVED, limit: MAX_MEMBERS as u64 });
        }
        removed.push(parse_member_key(bucket::MEMBERS_REMOVED, key)?);
        Ok(true)
    })?;
    Ok(removed)
}

fn parse_member_key(name: &'static str, key: &[u8]) -> Result<MemberId, Error> {
    std::str::from_utf8(key).ok().and_then(|text| text.parse().ok()).ok_or_else(|| value_error(name, key, ValueProblem::Text))
}

/// A downgrade of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// Whether it is under way.
    pub enabled: bool,
    /// The version it leads to, as text; may be empty.
    pub target: String,
}

/// The versions in the `cluster` bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterVersions {
    /// The version all members had in common.
    pub cluster_version: Option<Version>,
    /// A downgrade that was begun, if the file tells of one.
    pub downgrade: Option<Downgrade>,
}

#[derive(Deserialize)]
struct DowngradeJson {
    #[serde(rename = "target-version", default)]
    target: String,
    #[serde(default)]
    enabled: bool,
}

/// Reads the `cluster` bucket.
///
/// # Errors
///
/// [`Error::Value`] for a value that cannot be read.
pub fn read_cluster_versions<S: ReadAt>(database: &Database<S>) -> Result<ClusterVersions, Error> {
    let fail = |key: &[u8], problem| value_error(bucket::CLUSTER, key, problem);
    let cluster_version = get(database, bucket::CLUSTER, cluster_key::CLUSTER_VERSION)?
        .map(|bytes| parse_version(&bytes).map_err(|problem| fail(cluster_key::CLUSTER_VERSION, problem)))
        .transpose()?;
    let downgrade = get(database, bucket::CLUSTER, cluster_key::DOWNGRADE)?
        .map(|bytes| parse_downgrade(&bytes).map_err(|problem| fail(cluster_key::DOWNGRADE, problem)))
        .transpose()?;
    Ok(ClusterVersions { cluster_version, downgrade })
}

fn parse_downgrade(bytes: &[u8]) -> Result<Downgrade, ValueProblem> {
    if bytes.len() > MAX_JSON_BYTES {
        return Err(ValueProblem::TooLong(bytes.len()));
    }
    let json: DowngradeJson = serde_json::from_slice(bytes).map_err(|error| ValueProblem::Json(error.to_string()))?;
    if json.target.len() > MAX_NAME_BYTES {
        return Err(ValueProblem::TooLong(json.target.len()));
    }
    Ok(Downgrade { enabled: json.enabled, target: json.target })
}
