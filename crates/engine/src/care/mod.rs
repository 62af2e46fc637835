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
pub mod view;

pub use quorum::Quorum;
pub use view::{ClusterView, MemberAnswer, MemberView, Silence};
