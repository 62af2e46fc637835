//! Versions, services, memory, mounts.

use std::time::{Duration, SystemTime};

use crate::pb;

/// Which Talos runs on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Like "v1.13.9".
    pub tag: String,
    /// Like "amd64".
    pub arch: String,
    /// What it runs on: "metal", "aws" and so on.
    pub platform: String,
    /// "metal", "cloud", "container": what can be done to the machine depends on it.
    pub mode: String,
}

impl Version {
    /// Major and minor version; `None` when the tag is no version.
    #[must_use]
    pub fn minor(&self) -> Option<(u64, u64)> {
        let mut parts = self.tag.strip_prefix('v')?.split(['.', '-', '+']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    pub(crate) fn from_wire(answer: pb::Version) -> Self {
        let version = answer.version.unwrap_or_default();
        let platform = answer.platform.unwrap_or_default();
        Self { tag: version.tag, arch: version.arch, platform: platform.name, mode: platform.mode }
    }
}

/// Memory of a node, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs can still have.
    pub available: u64,
}

impl Memory {
    pub(crate) fn from_wire(answer: pb::Memory) -> Self {
        const KIB: u64 = 1024;
        let info = answer.meminfo.unwrap_or_default();
        Self { total: info.memtotal.saturating_mul(KIB), available: info.memavailable.saturating_mul(KIB) }
    }
}

/// A mounted filesystem. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub filesystem: String,
    /// Where.
    pub mounted_on: String,
    /// Its size.
    pub size: u64,
    /// What is free.
    pub available: u64,
}

impl From<pb::MountStat> for Mount {
    fn from(stat: pb::MountStat) -> Self {
        Self { filesystem: stat.filesystem, mounted_on: stat.mounted_on, size: stat.size, available: stat.available }
    }
}

/// Whether a service is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceHealth {
    /// It says so.
    Healthy,
    /// It says the contrary.
    Unhealthy,
    /// It has not said yet, or has no check.
    Unknown,
}

/// Something that happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEvent {
    /// The state it brought.
    pub state: String,
    /// In words; where a restore failed, this is the only place that says why.
    pub message: String,
    /// When, if told.
    pub at: Option<SystemTime>,
}

/// A service of Talos on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `etcd`, `kubelet`, `cri` and so on.
    pub id: String,
    /// `Initialized`, `Preparing`, `Waiting`, `Running`, `Stopping`, `Finished`, `Failed`, `Skipped`, `Starting`.
    pub state: String,
    /// Whether it is well.
    pub health: ServiceHealth,
    /// The last word of its health check.
    pub last_message: String,
    /// What happened to it, oldest first.
    pub events: Vec<ServiceEvent>,
}

impl Service {
    /// Whether it runs and is well.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.state == "Running" && self.health == ServiceHealth::Healthy
    }
}

impl From<pb::ServiceInfo> for Service {
    fn from(info: pb::ServiceInfo) -> Self {
        let health = info.health.unwrap_or_default();
        Self {
            id: info.id,
            state: info.state,
            health: match (health.unknown, health.healthy) {
                (true, _) => ServiceHealth::Unknown,
                (false, true) => ServiceHealth::Healthy,
                (false, false) => ServiceHealth::Unhealthy,
            },
            last_message: health.last_message,
            events: info.events.unwrap_or_default().events.into_iter().map(event).collect(),
        }
    }
}

fn event(event: pb::ServiceEvent) -> ServiceEvent {
    let at = event.ts.and_then(|at| {
        let since = Duration::new(u64::try_from(at.seconds).ok()?, u32::try_from(at.nanos).ok().filter(|&n| n < 1_000_000_000)?);
        SystemTime::UNIX_EPOCH.checked_add(since)
    });
    ServiceEvent { state: event.state, message: event.msg, at }
}

/// What a reset of a node does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetRequest {
    /// Cordon, drain and leave etcd first. Wrong without quorum: it waits for etcd.
    pub graceful: bool,
    /// Start again afterwards; else the machine shuts down.
    pub reboot: bool,
    /// Labels of the system partitions that are emptied (`EPHEMERAL`, `ETCD`); all of them, the machine config included,
    /// when there is none.
    pub wipe: Vec<String>,
}

impl From<ResetRequest> for pb::ResetRequest {
    fn from(request: ResetRequest) -> Self {
        let specs = request.wipe.into_iter().map(|label| pb::ResetPartitionSpec { label, wipe: true }).collect();
        Self { graceful: request.graceful, reboot: request.reboot, system_partitions_to_wipe: specs }
    }
}

/// The id of a start of the machine; `None` for what is no word.
pub(crate) fn boot_id(file: &[u8]) -> Option<String> {
    let id = str::from_utf8(file).ok()?.trim();
    let word = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
    word.then(|| id.to_owned())
}

/// The wall clock from `/proc/stat`, whose line `btime` tells the seconds since 1970 at which the machine was started, and
/// `/proc/uptime`, whose first number tells how many seconds ago that was. `None` when they do not.
pub(crate) fn wall_clock(stat: &[u8], uptime: &[u8]) -> Option<SystemTime> {
    let started = str::from_utf8(stat).ok()?.lines().find_map(|line| line.strip_prefix("btime "))?;
    let started = Duration::from_secs(started.trim().parse().ok()?);
    let up = str::from_utf8(uptime).ok()?.split_whitespace().next()?;
    let up = Duration::try_from_secs_f64(up.parse().ok()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(started.checked_add(up)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::{Duration, SystemTime};

    use proptest::prelude::*;

    use super::{Version, boot_id, wall_clock};

    #[test]
    fn a_version_is_read_from_its_tag() {
        let minor = |tag: &str| {
            let version = Version { tag: tag.to_owned(), arch: String::new(), platform: String::new(), mode: String::new() };
            version.minor()
        };
        assert_eq!(minor("v1.13.9"), Some((1, 13)));
        assert_eq!(minor("v1.14.0-rc.1"), Some((1, 14)));
        assert_eq!(minor("v1.15-alpha"), Some((1, 15)));
        assert_eq!(minor("1.13.9"), None);
        assert_eq!(minor("none"), None);
    }

    #[test]
    fn the_clock_is_when_it_was_started_and_how_long_ago() {
        let stat = b"cpu  1 2 3\nintr 99 0 0\nctxt 5\nbtime 1700000000\nprocesses 7\n";
        let clock = |stat: &[u8], uptime: &[u8]| wall_clock(stat, uptime);
        let expected = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_012_500);
        assert_eq!(clock(stat, b"12.50 40.02\n"), Some(expected));
        for uptime in [&b""[..], b"-1 2", b"NaN", b"1e300", b"twelve", b"\xff"] {
            assert_eq!(clock(stat, uptime), None, "{uptime:?}");
        }
        for stat in [&b""[..], b"btime", b"btime x", b"btime 18446744073709551615", b"xbtime 1"] {
            assert_eq!(clock(stat, b"12.50 40.02\n"), None, "{stat:?}");
        }
    }

    #[test]
    fn a_boot_id_is_one_word() {
        assert_eq!(boot_id(b"5c0f-11\n").as_deref(), Some("5c0f-11"));
        for none in [&b""[..], b"\n", b"two words", b"\x1b[31m", b"\xff"] {
            assert_eq!(boot_id(none), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_a_reader_panic(stat in "(btime [0-9]{0,21}\n)?.{0,40}", uptime in "[-0-9.eE]{0,30}", any in any::<Vec<u8>>()) {
            let _either = (wall_clock(stat.as_bytes(), uptime.as_bytes()), wall_clock(&any, uptime.as_bytes()), boot_id(&any));
        }
    }
}
