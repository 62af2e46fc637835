//! The `auth`, `authUsers` and `authRoles` buckets. Passwords (bcrypt) are never read.

use bbolt::{Database, ReadAt};

use super::lease::Listing;
use super::{bucket, for_each, get, parse_u64, value_error};
use crate::error::{Error, ValueProblem};
use crate::limits::{MAX_LISTED_AUTH_NAMES, MAX_NAME_BYTES};

const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";

/// Whether a cluster asks for credentials, and who it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// Whether authentication is on. It stays on after a restore.
    pub enabled: bool,
    /// Counts changes to users and roles; 0 when nothing was ever set.
    pub revision: u64,
    /// Names of users.
    pub users: Listing<String>,
    /// Names of roles.
    pub roles: Listing<String>,
}

/// Reads what the file says about authentication.
///
/// # Errors
///
/// [`Error::Value`] for a value or a name etcd could not read.
pub fn read_auth<S: ReadAt>(database: &Database<S>) -> Result<Auth, Error> {
    let enabled = get(database, bucket::AUTH, ENABLED)?;
    let revision = get(database, bucket::AUTH, REVISION)?
        .map(|bytes| parse_u64(&bytes).map_err(|problem| value_error(bucket::AUTH, REVISION, problem)))
        .transpose()?;
    Ok(Auth {
        // etcd takes the single byte 1 for "on" and everything else for "off".
        enabled: enabled.as_deref() == Some(&[1]),
        revision: revision.unwrap_or(0),
        users: read_names(database, bucket::AUTH_USERS)?,
        roles: read_names(database, bucket::AUTH_ROLES)?,
    })
}

fn read_names<S: ReadAt>(database: &Database<S>, name: &'static str) -> Result<Listing<String>, Error> {
    let mut names = Listing::default();
    for_each(database, name, |key, _| {
        if key.len() > MAX_NAME_BYTES {
            return Err(value_error(name, key, ValueProblem::TooLong(key.len())));
        }
        names.push(MAX_LISTED_AUTH_NAMES, || String::from_utf8_lossy(key).into_owned());
        Ok(true)
    })?;
    Ok(names)
}
