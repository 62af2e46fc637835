//! The plan of a restore: everything that must be the same on every node of the restored cluster, fixed once.
//!
//! Members that are restored with different revisions or members form a cluster that looks healthy and diverges silently, so with several members
//! the plan is written to a file first and each node carries out the same file.

use std::path::Path;
use std::time::Duration;

use etcd_store::cluster::{ClusterSpec, MemberSpec};
use etcd_store::id::{LeaseId, Revision};
use etcd_store::restore::Edits;
use serde::{Deserialize, Serialize};
use vault::canonical::{self, Object};

use crate::failure::{Failure, Outcome};

/// Largest plan file in bytes.
const MAX_PLAN: usize = 1 << 20;
/// What a key's lease gets when nobody knows what it had.
pub const UNKNOWN_LEASE_TTL: Duration = Duration::from_secs(3600);

/// What Talos's own keys in etcd begin with: the election of the virtual IP's holder, and mutexes, each on the lease of a session of 60 s. A stale
/// one holds its purpose back until its lease, which begins anew in a restored cluster, has run out.
/// Source: Talos, constant `EtcdRootTalosKey` in `pkg/machinery/constants`, with `:` behind it wherever it is used.
pub const TALOS_KEYS: &[u8] = b"talos:v1:";

/// One member of the cluster to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMember {
    /// Its name.
    pub name: String,
    /// Its peer URLs.
    pub peer_urls: Vec<String>,
}

/// What every node does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// The repository's id; none for a bare file.
    pub repository: Option<String>,
    /// The cluster's name in the repository; none for a bare file.
    pub cluster: Option<String>,
    /// The backup's id; none for a bare file.
    pub backup: Option<String>,
    /// SHA-256 of the snapshot file (without trailer), lower hex: the same plan never meets another content.
    pub database_sha256: String,
    /// The revision the restored cluster begins after; none leaves revisions as they were.
    pub target_revision: Option<i64>,
    /// The token, fresh for each restore, so that members of the lost cluster cannot join.
    pub token: String,
    /// The members.
    pub members: Vec<PlannedMember>,
    /// Clear alarms of the lost cluster.
    pub clear_alarms: bool,
    /// Drop recorded versions that are newer than the etcd that will run.
    pub drop_versions: bool,
    /// Seconds that a lease gets which keys refer to and which the backup does not hold.
    pub unknown_lease_ttl: i64,
    /// Drop Talos's own keys, see [`TALOS_KEYS`]; only with a target revision. Plan files from before there was such a thing do not say.
    #[serde(default)]
    pub for_talos: bool,
}

impl Object for RestorePlan {
    const SCHEMA: &'static str = "lifeboat.restore-plan/1";
    const LIMIT: usize = MAX_PLAN;
}

impl RestorePlan {
    /// The cluster to be, checked as etcdutl checks it.
    pub fn cluster_spec(&self) -> Outcome<ClusterSpec> {
        let wrong = |error: &dyn std::fmt::Display| Failure::usage("the members of the restored cluster do not fit").cause(error).again();
        let mut members = Vec::new();
        for member in &self.members {
            let mut peer_urls = Vec::new();
            for url in &member.peer_urls {
                peer_urls.push(url.parse().map_err(|error| wrong(&format!("member {}: {error}", member.name)))?);
            }
            members.push(MemberSpec { name: member.name.clone(), peer_urls });
        }
        ClusterSpec::new(&self.token, members).map_err(|error| wrong(&error))
    }

    /// The edits to the database, the same on every node.
    pub fn edits(&self, cluster: Option<ClusterSpec>, missing_leases: &[LeaseId]) -> Edits {
        Edits {
            cluster,
            bump: self.target_revision.map(Revision),
            mark_compacted: self.target_revision.is_some(),
            clear_alarms: self.clear_alarms,
            drop_versions: self.drop_versions,
            reset_auth: false,
            add_leases: missing_leases.iter().map(|id| (*id, self.unknown_lease_ttl)).collect(),
            drop_prefixes: if self.for_talos { vec![TALOS_KEYS.to_vec()] } else { Vec::new() },
        }
    }

    /// Writes the plan to a new file.
    pub fn write(&self, path: &Path) -> Outcome<()> {
        let bytes = canonical::encode(self).map_err(|error| Failure::failed(format!("the plan cannot be written: {error}")))?;
        disk::publish_new(path, &bytes, 0o600)
            .map_err(|error| Failure::failed(format!("the plan cannot be written: {error}")).object(path.display()).again())
    }

    /// Reads a plan that [`RestorePlan::write`] wrote; one that was changed is refused.
    pub fn read(path: &Path) -> Outcome<Self> {
        let failed = |cause: &dyn std::fmt::Display| Failure::usage("the plan cannot be read").object(path.display()).cause(cause).again();
        let size = std::fs::metadata(path).map_err(|error| failed(&error))?.len();
        if size > MAX_PLAN as u64 {
            return Err(failed(&format!("{size} bytes are more than a plan has")));
        }
        let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
        canonical::decode(&bytes).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RestorePlan {
        RestorePlan {
            repository: None,
            cluster: Some("prod".to_owned()),
            backup: None,
            database_sha256: "ab".repeat(32),
            target_revision: Some(1_000_000_123),
            token: "lifeboat-x".to_owned(),
            members: vec![
                PlannedMember { name: "m1".to_owned(), peer_urls: vec!["http://127.0.0.1:1".to_owned()] },
                PlannedMember { name: "m2".to_owned(), peer_urls: vec!["http://127.0.0.1:2".to_owned()] },
            ],
            clear_alarms: true,
            drop_versions: false,
            unknown_lease_ttl: 3600,
            for_talos: false,
        }
    }

    #[test]
    fn comes_back_from_its_file_as_it_was_and_not_otherwise() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plan.json");
        plan().write(&path).unwrap();
        assert_eq!(RestorePlan::read(&path).unwrap(), plan());
        let text = std::fs::read_to_string(&path).unwrap().replace("1000000123", "1000000124");
        std::fs::write(&path, text).unwrap();
        assert!(RestorePlan::read(&path).unwrap_err().cause.unwrap().contains("self_sha256"));
    }

    #[test]
    fn a_file_from_before_there_was_a_plan_for_talos_is_read() {
        let text = String::from_utf8(canonical::encode(&plan()).unwrap()).unwrap();
        let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(old.as_object_mut().unwrap().remove("for_talos"), Some(false.into()));
        let old: RestorePlan = serde_json::from_value(old).unwrap();
        assert_eq!(old, plan());
    }

    #[test]
    fn a_plan_for_talos_drops_its_keys_and_moves_revisions_on() {
        let plan = RestorePlan { for_talos: true, ..plan() };
        assert_eq!(plan.edits(None, &[]).drop_prefixes, [TALOS_KEYS]);
        assert!(super::super::file_edit::check(&plan).is_ok());
        let refused = super::super::file_edit::check(&RestorePlan { target_revision: None, ..plan });
        assert_eq!(refused.unwrap_err().code, crate::Code::Usage);
    }

    #[test]
    fn members_that_do_not_fit_are_refused() {
        let mut twice = plan();
        let first = twice.members[0].peer_urls.clone();
        twice.members[1].peer_urls = first;
        assert_eq!(twice.cluster_spec().unwrap_err().code, crate::Code::Usage);
        assert_eq!(plan().cluster_spec().unwrap().members().len(), 2);
    }
}
