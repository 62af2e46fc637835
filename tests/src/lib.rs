//! What end-to-end tests stand on: real etcd processes of every supported version, the real command-line tools, real S3 servers and a bad network.
//!
//! Start here:
//! - [`etcd_matrix!`] turns one body into a test per etcd version, and reports which ones ran;
//! - [`EtcdCluster`] runs one or more members with TLS, authentication, quota; stops, kills, freezes and restarts them; boots restored data;
//! - [`Lifeboat`] runs the binary under test in an environment of its own, [`Agent`] the agent; [`Run`] runs anything else;
//! - [`workload`] fills a cluster as Kubernetes would; [`dump`] reads everything back for comparison;
//! - [`TlsSet`] makes certificates, good and bad; [`S3Server`], [`CloudServer`], [`HttpProxy`] and [`Proxy`] stand for stores, good and bad, and networks.
//!
//! Invariants: everything listens on loopback only; a listener is used only after `/proc` showed that it belongs to our child; every child dies
//! with the value that holds it, and at the latest with the test process, however that ends. Files live in temporary directories.
//!
//! This is test code: every function panics, with what happened and the end of the logs, where a test could not go on anyway.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a panic with a message is how a test fails, and printing is how it speaks to xtask"
)]

pub mod agent;
pub mod binary;
pub mod care;
pub mod clouds;
pub mod damage;
pub mod dump;
pub mod etcd;
pub mod http_proxy;
pub mod job;
pub mod matrix;
pub mod net;
pub mod peers;
pub mod process;
pub mod proxy;
pub mod random;
pub mod run;
pub mod s3;
pub mod sampler;
pub mod server;
pub mod terminal;
pub mod tls;
pub mod workload;

pub use agent::Agent;
pub use binary::Lifeboat;
pub use care::Care;
pub use clouds::CloudServer;
pub use dump::{Dump, dump_all};
pub use etcd::{ClusterPlan, EtcdCluster, Options, Tls};
pub use http_proxy::HttpProxy;
pub use job::Job;
pub use peers::{EtcdVersion, Peer, peer, peers, versions};
pub use proxy::Proxy;
pub use random::Random;
pub use run::{Finished, Run, Running};
pub use s3::S3Server;
pub use terminal::at_terminal;
pub use tls::TlsSet;
pub use workload::{Applied, Workload};
