//! The daily care of a cluster: looking at every member, judging what is seen, and the few changes that keep it healthy.
//!
//! [`look`] finds every member from one and asks each of them; what it brings home is a [`ClusterView`], a plain value. Everything that judges
//! ([`quorum`], [`health`], [`defrag`]) is pure and works on such views, so that what `--dry-run` prints is what a run does, and that the judgement is the
//! same whether the answers came over etcd's API or over Talos's.
//!
//! Nothing here changes a cluster without a plan that was shown, and a plan stops at the first step that did not have its effect.

pub mod act;
pub mod change;
pub mod defrag;
pub mod defrag_run;
pub mod hashkv;
pub mod health;
pub mod look;
pub mod nospace;
pub mod quorum;
pub mod refusal;
pub mod talos_facts;
pub mod trend;
pub mod view;

/// Bytes in the unit a person reads: `812.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

pub use quorum::Quorum;
pub use refusal::Refusal;
pub use view::{ClusterView, MemberAnswer, MemberView, Silence};
