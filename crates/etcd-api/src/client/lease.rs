//! Leases.

use std::time::Duration;

use etcd_store::id::LeaseId;

use super::{Client, method};
use crate::error::{Error, ErrorKind};
use crate::pb;
use crate::types::{LeaseGranted, LeaseState};

impl Client {
    /// Grants a lease. `ttl` is cut to whole seconds, `id` is picked by etcd when `None`.
    ///
    /// # Errors
    /// What any call may return; an id in use is `Rpc` with etcd's text.
    pub async fn lease_grant(&self, ttl: Duration, id: Option<LeaseId>) -> Result<LeaseGranted, Error> {
        let request = pb::LeaseGrantRequest { ttl: i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX), id: id.map_or(0, |id| id.0) };
        let answer: pb::LeaseGrantResponse = self.call(&method::LEASE_GRANT, request).await?;
        if !answer.error.is_empty() {
            let text = grpc_link::tame(&answer.error);
            return Err(self.error(&method::LEASE_GRANT, ErrorKind::Protocol(text)));
        }
        Ok(LeaseGranted { id: LeaseId(answer.id), ttl: seconds(answer.ttl) })
    }

    /// Revokes a lease; the keys it holds are deleted.
    ///
    /// # Errors
    /// [`LeaseNotFound`](ErrorKind::LeaseNotFound), and what any call may return.
    pub async fn lease_revoke(&self, id: LeaseId) -> Result<(), Error> {
        let request = pb::LeaseRevokeRequest { id: id.0 };
        let _: pb::LeaseRevokeResponse = self.call(&method::LEASE_REVOKE, request).await?;
        Ok(())
    }

    /// How long a lease has left, and with `keys` what it holds.
    ///
    /// # Errors
    /// What any call may return. A lease that does not exist is no error: its `remaining` is `None`.
    pub async fn lease_time_to_live(&self, id: LeaseId, keys: bool) -> Result<LeaseState, Error> {
        let request = pb::LeaseTimeToLiveRequest { id: id.0, keys };
        let answer: pb::LeaseTimeToLiveResponse = self.call(&method::LEASE_TIME_TO_LIVE, request).await?;
        Ok(LeaseState {
            id: LeaseId(answer.id),
            remaining: u64::try_from(answer.ttl).ok().map(Duration::from_secs),
            granted: seconds(answer.granted_ttl),
            keys: answer.keys,
        })
    }

    /// The ids of every lease.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        let answer: pb::LeaseLeasesResponse = self.call(&method::LEASE_LEASES, pb::LeaseLeasesRequest {}).await?;
        Ok(answer.leases.into_iter().map(|lease| LeaseId(lease.id)).collect())
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
