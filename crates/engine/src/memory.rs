//! How much memory there is for pages that wait to be written.

use std::fs;

/// Bytes that this process and the page cache may still take: what the system has available, or the limit of the control group where that is less.
/// `None` where the system does not say.
pub(crate) fn available() -> Option<u64> {
    let system = of_system(&fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    Some(group.and_then(|text| of_group(&text)).map_or(system, |limit| system.min(limit)))
}

/// `MemAvailable` of `/proc/meminfo`, which is in units of 1024 bytes (proc_meminfo(5)).
fn of_system(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// A limit of control groups version 2: bytes, or `max` for none.
fn of_group(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        assert_eq!(of_system("MemTotal:  100 kB\nMemAvailable:   24117248 kB\n"), Some(24_117_248 << 10));
        assert_eq!(of_system("MemTotal:  100 kB\n"), None);
        assert_eq!(of_system("MemAvailable: 18446744073709551615 kB"), None);
        assert_eq!((of_group("536870912\n"), of_group("max\n")), (Some(512 << 20), None));
    }
}
