//! The machine itself: version, services, memory, mounts, clock; bootstrap, reset and reboot.

use std::time::SystemTime;

use super::{DataStream, Node, method};
use crate::error::{Error, ErrorKind};
use crate::limits::{BOOT_ID_MAX, PROC_STAT_MAX, PROC_UPTIME_MAX};
use crate::pb;
use crate::types::machine::{boot_id, wall_clock};
use crate::types::{Memory, Mount, ResetRequest, Service, Version};

/// What `tail_lines` takes for "all".
const ALL_LINES: i32 = -1;

impl Node {
    /// Which Talos runs there.
    ///
    /// # Errors
    /// What any call may return. `os:etcd:backup` may not ask.
    pub async fn version(&self) -> Result<Version, Error> {
        let answer = self.call::<_, pb::VersionResponse>(&method::VERSION, pb::Empty {}).await?;
        Ok(Version::from_wire(answer))
    }

    /// The host name.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn hostname(&self) -> Result<String, Error> {
        let answer = self.call::<_, pb::HostnameResponse>(&method::HOSTNAME, pb::Empty {}).await?;
        Ok(answer.hostname)
    }

    /// Memory, as a whole and what is left.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn memory(&self) -> Result<Memory, Error> {
        let answer = self.call::<_, pb::MemoryResponse>(&method::MEMORY, pb::Empty {}).await?;
        Ok(Memory::from_wire(answer))
    }

    /// Mounted filesystems with their room.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn mounts(&self) -> Result<Vec<Mount>, Error> {
        let answer = self.call::<_, pb::MountsResponse>(&method::MOUNTS, pb::Empty {}).await?;
        Ok(answer.stats.into_iter().map(Mount::from).collect())
    }

    /// Every service with its state, health and events.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn services(&self) -> Result<Vec<Service>, Error> {
        let answer = self.call::<_, pb::ServiceListResponse>(&method::SERVICE_LIST, pb::Empty {}).await?;
        Ok(answer.services.into_iter().map(Service::from).collect())
    }

    /// One service; `None` when the node has none of that name.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn service(&self, id: &str) -> Result<Option<Service>, Error> {
        Ok(self.services().await?.into_iter().find(|service| service.id == id))
    }

    /// The log of one of Talos' own services, `etcd` for one. `tail` is the number of lines from its end, `None` for all.
    /// With `follow` it goes on as long as it is read, and this call itself waits for the first line.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] or an `Rpc` error when there is no such log, and what any call may return.
    pub async fn logs(&self, service: &str, tail: Option<u32>, follow: bool) -> Result<DataStream, Error> {
        let request = pb::LogsRequest {
            namespace: "system".to_owned(),
            id: service.to_owned(),
            driver: 0,
            follow,
            tail_lines: tail.map_or(ALL_LINES, |lines| i32::try_from(lines).unwrap_or(i32::MAX)),
        };
        DataStream::open(self, &method::LOGS, request, follow).await
    }

    /// The bytes of a regular file. Needs `os:admin`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; an `Rpc` error for what is no regular file; what any call may return.
    pub async fn read(&self, path: &str) -> Result<DataStream, Error> {
        DataStream::open(self, &method::READ, pb::ReadRequest { path: path.to_owned() }, false).await
    }

    /// The id that the kernel gave this start of the machine (`/proc/sys/kernel/random/boot_id`): another one shows that it
    /// was started again. Needs `os:admin`.
    ///
    /// # Errors
    /// As [`Self::read`]; a `Protocol` error for what is no such id.
    pub async fn boot_id(&self) -> Result<String, Error> {
        let bytes = self.read("/proc/sys/kernel/random/boot_id").await?.collect(BOOT_ID_MAX).await?;
        boot_id(&bytes).ok_or_else(|| self.protocol(&method::READ, "a boot id that is none"))
    }

    /// The wall clock of the machine, to a second or so: the kernel tells when it was started, by that clock (`btime` of
    /// `/proc/stat`), and how long ago that was (`/proc/uptime`). What the calls take comes on top. Needs `os:admin`.
    ///
    /// Source: Linux `Documentation/filesystems/proc.rst`. Talos' own call for the time asks a time server first.
    ///
    /// # Errors
    /// As [`Self::read`]; a `Protocol` error when the files do not tell it.
    pub async fn clock(&self) -> Result<SystemTime, Error> {
        let stat = self.read("/proc/stat").await?.collect(PROC_STAT_MAX).await?;
        // Last, so that it is the time of the second answer that is told.
        let uptime = self.read("/proc/uptime").await?.collect(PROC_UPTIME_MAX).await?;
        wall_clock(&stat, &uptime).ok_or_else(|| self.protocol(&method::READ, "/proc/stat and /proc/uptime tell no time"))
    }

    /// Starts etcd for the first time on this node, with `recover` from the snapshot that was uploaded before.
    ///
    /// Success means that etcd's service was started, not that the restore ran: watch [`Self::service`] until `etcd` is
    /// well, or `Failed`, whose event says why. The order to recover lives in the memory of the machine: a reboot loses it.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] before the node is up and its clock in sync; [`ErrorKind::AlreadyExists`] when etcd's data
    /// directory is not empty; what any call may return.
    pub async fn bootstrap(&self, recover: bool, skip_hash_check: bool) -> Result<(), Error> {
        let request = pb::BootstrapRequest { recover_etcd: recover, recover_skip_hash_check: skip_hash_check };
        self.call::<_, pb::BootstrapResponse>(&method::BOOTSTRAP, request).await?;
        Ok(())
    }

    /// Wipes partitions of this node. It goes on after the answer; returns the id by which its events are known.
    ///
    /// # Errors
    /// An `Rpc` error for a label the node does not know; what any call may return.
    pub async fn reset(&self, request: ResetRequest) -> Result<String, Error> {
        if request.wipe.iter().any(String::is_empty) {
            let kind = ErrorKind::Invalid("a partition without a label".to_owned());
            return Err(self.error(&method::RESET, None, kind));
        }
        let answer = self.call::<_, pb::ResetResponse>(&method::RESET, pb::ResetRequest::from(request)).await?;
        Ok(answer.actor_id)
    }

    /// Starts this node anew, in an orderly way. It goes on after the answer; [`Self::boot_id`] shows when it has happened.
    ///
    /// # Errors
    /// [`ErrorKind::NotReady`] in a container, which cannot be rebooted from within; what any call may return.
    pub async fn reboot(&self) -> Result<(), Error> {
        const DEFAULT: i32 = 0;
        self.call::<_, pb::RebootResponse>(&method::REBOOT, pb::RebootRequest { mode: DEFAULT }).await?;
        Ok(())
    }
}
