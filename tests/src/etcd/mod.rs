//! etcd clusters as real processes.

mod cluster;
mod health;
mod member;
mod options;
mod plan;
mod tools;

pub use cluster::EtcdCluster;
pub use member::Member;
pub use options::{Options, Tls};
pub use plan::{ClusterPlan, PlannedMember};
pub use tools::{etcdctl, etcdutl, restore_with_etcd};
