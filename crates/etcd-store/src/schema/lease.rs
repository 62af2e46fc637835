//! The `lease` and `alarm` buckets.

use bbolt::{Database, ReadAt};

use super::{bucket, for_each, value_error};
use crate::error::{Error, ValueProblem};
use crate::id::{LeaseId, MemberId};
use crate::limits::MAX_ALARMS;
use crate::proto::{Fields, Malformed, put_number_if_set};

/// One lease, as `leasepb.Lease` in the `lease` bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The time to live it was granted, seconds.
    pub ttl: i64,
    /// What was left of it at the last checkpoint, seconds; 0 when none was taken.
    pub remaining: i64,
}

/// The first entries of a list, and how many there are in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<T> {
    /// The entries, in the order of their keys.
    pub items: Vec<T>,
    /// The number of entries in the file, those not listed included.
    pub total: u64,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { items: Vec::new(), total: 0 }
    }
}

impl<T> Listing<T> {
    /// True when there are more entries than listed.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.items.len() as u64 != self.total
    }

    /// Counts one more entry, and lists it unless there are `limit` already.
    pub(crate) fn push(&mut self, limit: usize, item: impl FnOnce() -> T) {
        self.total += 1;
        if self.items.len() < limit {
            self.items.push(item());
        }
    }
}

/// The key of a lease: its id, big endian.
pub(crate) fn lease_key(id: LeaseId) -> [u8; 8] {
    id.0.to_be_bytes()
}

pub(crate) fn parse_lease_key(key: &[u8]) -> Result<LeaseId, Error> {
    let bytes =
        <[u8; 8]>::try_from(key).map_err(|_| value_error(bucket::LEASE, key, ValueProblem::Length { found: key.len(), expected: 8 }))?;
    Ok(LeaseId(i64::from_be_bytes(bytes)))
}

/// A lease's value as etcd writes it.
pub(crate) fn encode_lease(lease: &Lease) -> Vec<u8> {
    let mut out = Vec::new();
    put_number_if_set(&mut out, 1, lease.id.0.cast_unsigned());
    put_number_if_set(&mut out, 2, lease.ttl.cast_unsigned());
    put_number_if_set(&mut out, 3, lease.remaining.cast_unsigned());
    out
}

fn decode_lease(bytes: &[u8]) -> Result<Lease, Malformed> {
    let mut lease = Lease { id: LeaseId(0), ttl: 0, remaining: 0 };
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => lease.id = LeaseId(value.int64(field)?),
            2 => lease.ttl = value.int64(field)?,
            3 => lease.remaining = value.int64(field)?,
            _ => {}
        }
    }
    Ok(lease)
}

/// Reads every lease and lists the first `limit`.
///
/// # Errors
///
/// [`Error::Value`] for the first lease etcd could not read, or whose value names another id than its key.
pub fn read_leases<S: ReadAt>(database: &Database<S>, limit: usize) -> Result<Listing<Lease>, Error> {
    let mut leases = Listing::default();
    for_each(database, bucket::LEASE, |key, value| {
        let id = parse_lease_key(key)?;
        let lease = decode_lease(value).map_err(|source| value_error(bucket::LEASE, key, source))?;
        if lease.id != id {
            return Err(value_error(bucket::LEASE, key, ValueProblem::OtherId(lease.id.to_string())));
        }
        leases.push(limit, || lease);
        Ok(true)
    })?;
    Ok(leases)
}

/// The kind of an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmKind {
    /// The database outgrew its quota: writes are refused.
    NoSpace,
    /// A member's data differ from the others': all requests are refused.
    Corrupt,
    /// One that this version does not know.
    Other(u64),
}

/// An active alarm. It survives a restore unless it is cleared, though its member does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// The member that raised it; 0 when the cluster could not tell which.
    pub member: MemberId,
    /// What is wrong.
    pub kind: AlarmKind,
}

fn decode_alarm(bytes: &[u8]) -> Result<Alarm, Malformed> {
    let (mut member, mut kind) = (0, 0);
    let mut fields = Fields::of(bytes);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => member = value.varint(field)?,
            2 => kind = value.varint(field)?,
            _ => {}
        }
    }
    let kind = match kind {
        1 => AlarmKind::NoSpace,
        2 => AlarmKind::Corrupt,
        other => AlarmKind::Other(other),
    };
    Ok(Alarm { member: MemberId(member), kind })
}

/// Reads the active alarms.
///
/// # Errors
///
/// [`Error::Value`] for a key that is no alarm; [`Error::TooMany`].
pub fn read_alarms<S: ReadAt>(database: &Database<S>) -> Result<Vec<Alarm>, Error> {
    let mut alarms = Vec::new();
    for_each(database, bucket::ALARM, |key, _| {
        if alarms.len() == MAX_ALARMS {
            return Err(Error::TooMany { bucket: bucket::ALARM, limit: MAX_ALARMS as u64 });
        }
        alarms.push(decode_alarm(key).map_err(|source| value_error(bucket::ALARM, key, source))?);
        Ok(true)
    })?;
    Ok(alarms)
}
