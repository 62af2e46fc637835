//! How a double is set up.

use lifeboat_tests::EtcdVersion;

use crate::profile::Profile;

/// How a double is set up; one control plane node of Talos 1.13 on etcd 3.6 by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) control_planes: usize,
    pub(crate) workers: usize,
    pub(crate) etcd: EtcdVersion,
    pub(crate) profile: Profile,
    pub(crate) quota: Option<u64>,
    pub(crate) etcd_flags: Vec<String>,
    pub(crate) virtual_ip: bool,
    pub(crate) etcd_partition: bool,
    pub(crate) bootstrapped: bool,
    pub(crate) advertised: usize,
    pub(crate) ephemeral_size: Option<u64>,
    pub(crate) etcd_size: u64,
    pub(crate) platform_mode: String,
    pub(crate) init_node: bool,
    pub(crate) load_balancer: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            control_planes: 1,
            workers: 0,
            etcd: EtcdVersion::V3_6,
            profile: Profile::V1_13,
            quota: None,
            etcd_flags: Vec::new(),
            virtual_ip: false,
            etcd_partition: false,
            bootstrapped: true,
            advertised: 1,
            ephemeral_size: None,
            etcd_size: 10 << 30,
            platform_mode: "metal".to_owned(),
            init_node: false,
            load_balancer: false,
        }
    }
}

impl Options {
    /// How many control plane nodes, each with an etcd member.
    #[must_use]
    pub fn control_planes(mut self, count: usize) -> Self {
        self.control_planes = count;
        self
    }

    /// How many workers, numbered after the control plane nodes.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// Which etcd.
    #[must_use]
    pub fn etcd(mut self, version: EtcdVersion) -> Self {
        self.etcd = version;
        self
    }

    /// Which Talos.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// `--quota-backend-bytes`, also told by the resource EtcdSpec.
    #[must_use]
    pub fn quota(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// One more argument for every etcd.
    #[must_use]
    pub fn etcd_flag(mut self, flag: &str) -> Self {
        self.etcd_flags.push(flag.to_owned());
        self
    }

    /// A virtual address, held by the first node and first among the talosconfig's endpoints.
    #[must_use]
    pub fn virtual_ip(mut self) -> Self {
        self.virtual_ip = true;
        self
    }

    /// The volume `ETCD` is a partition of its own, as it can be since 1.14: a reset of `EPHEMERAL` leaves it.
    #[must_use]
    pub fn etcd_partition(mut self) -> Self {
        self.etcd_partition = true;
        self
    }

    /// Nodes that wait for a bootstrap, without any etcd data.
    #[must_use]
    pub fn not_bootstrapped(mut self) -> Self {
        self.bootstrapped = false;
        self
    }

    /// How many addresses EtcdSpec advertises; the real one comes first, nobody answers at the others. With more than one,
    /// Talos before 1.10.5 restores nothing.
    #[must_use]
    pub fn advertised(mut self, count: usize) -> Self {
        self.advertised = count.max(1);
        self
    }

    /// Size of the volume `EPHEMERAL`, and of `/var` on it; 20 GiB, and what the filesystem has, by default.
    #[must_use]
    pub fn ephemeral_size(mut self, bytes: u64) -> Self {
        self.ephemeral_size = Some(bytes);
        self
    }

    /// Size of the volume `ETCD`, where it is a partition of its own; 10 GiB by default.
    #[must_use]
    pub fn etcd_size(mut self, bytes: u64) -> Self {
        self.etcd_size = bytes;
        self
    }

    /// The platform's mode: `metal` by default. In a `container` Reset only shuts down, and nothing can be rebooted.
    #[must_use]
    pub fn platform_mode(mut self, mode: &str) -> Self {
        self.platform_mode = mode.to_owned();
        self
    }

    /// The first node is of the old kind `init`, which bootstraps by itself whenever it has no data.
    #[must_use]
    pub fn init_node(mut self) -> Self {
        self.init_node = true;
        self
    }

    /// A load balancer in front of the control plane nodes' apid ([`TalosDouble::load_balancer`](crate::TalosDouble::load_balancer)).
    #[must_use]
    pub fn load_balancer(mut self) -> Self {
        self.load_balancer = true;
        self
    }

    /// Whether it plays nodes in containers.
    pub(crate) fn in_container(&self) -> bool {
        self.platform_mode == "container"
    }
}
