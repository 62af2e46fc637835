//! A scratch etcd from a backup: restored without a bump into a private directory, booted on loopback, compared with the manifest, thrown away.
//!
//! Whatever way a run ends, [`Scratch`] takes etcd and the directory with it when it is dropped. What a SIGKILL leaves is removed by the next run.

mod binary;
mod directory;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_api::{Client, Credentials, ErrorKind};
use etcd_store::id::Revision;
use vault::manifest::HashKvValue;

use crate::failure::{Code, Failure, Outcome};
use crate::limits::{TRY_HASH_LEAST, TRY_HASH_SPEED};
use crate::opening::Opening;
use crate::place::{PlaceOptions, Which};
use crate::progress::Progress;
use crate::restore::plan::{PlannedMember, UNKNOWN_LEASE_TTL};
use crate::restore::{self, BumpChoice, Goal};
use crate::source_failure;

pub use binary::Binary;
pub use server::{run_tied, tell};

use directory::Directory;
use server::{Etcd, Ready};

/// Where the restored member would be reached by others. There are none, so nobody ever uses it.
const PEER_URL: &str = "http://localhost:2380";

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The repository.
    pub place: PlaceOptions,
    /// The cluster's name there; the only one where it is not given.
    pub cluster: Option<vault::name::ClusterName>,
    /// Which backup.
    pub which: Which,
    /// What opens it.
    pub opening: Opening,
    /// The etcd to run, where one was named.
    pub etcd: Option<PathBuf>,
    /// Directories in which `etcd` is looked for otherwise, in order.
    pub search: Vec<PathBuf>,
    /// The directory below which a private one is made.
    pub base: PathBuf,
    /// Whether that directory was named; one that was not is refused when it lies in memory.
    pub base_named: bool,
    /// The member's name.
    pub name: String,
    /// A user of the backup's own authentication, where that is on.
    pub credentials: Option<Credentials>,
    /// A command that runs the command after it as [`run_tied`] does; empty for none.
    pub tie: Vec<std::ffi::OsString>,
}

/// How the booted etcd compares with the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// HashKV at the backup's revision is what the manifest states; in words.
    Match(String),
    /// It cannot be compared; in words.
    Inconclusive(String),
}

/// A scratch etcd that serves. Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Scratch {
    // The order matters: what is above is dropped first.
    etcd: Etcd,
    directory: Directory,
    /// Where it is reached.
    pub endpoint: String,
    /// What runs.
    pub binary: Binary,
    /// The restore it came from.
    pub restored: restore::Report,
    /// How it compares with the manifest.
    pub proof: Proof,
    /// The time from its start until it answered its first linearizable read.
    pub served_after: Duration,
    /// Whether it answers us: it does not where it wants a user and none was given.
    pub open: bool,
}

/// What was restored and does not run yet. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Laid {
    request: Request,
    binary: Binary,
    directory: Directory,
    restored: restore::Report,
}

/// Why there is no proof that what was restored serves.
#[derive(Debug)]
pub(crate) enum NotServed {
    /// etcd does not run on the data, or does not hold what the manifest states.
    Refused(Failure),
    /// Something else was in the way.
    Hindered(Failure),
}

impl From<Failure> for NotServed {
    fn from(failure: Failure) -> Self {
        if failure.code == Code::Unproven { Self::Refused(failure) } else { Self::Hindered(failure) }
    }
}

impl From<NotServed> for Failure {
    fn from(not_served: NotServed) -> Self {
        match not_served {
            NotServed::Refused(failure) | NotServed::Hindered(failure) => failure,
        }
    }
}

impl Scratch {
    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// How etcd ended, if it did by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.etcd.ended()
    }

    /// The last lines of etcd's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.etcd.log_tail()
    }

    /// Ends it and removes everything.
    pub fn stop(self) -> Outcome<()> {
        let Self { etcd, directory, .. } = self;
        drop(etcd);
        directory.remove()
    }
}

/// Restores, boots, waits until it serves, and compares.
pub async fn start(request: Request, progress: Arc<dyn Progress>) -> Outcome<Scratch> {
    let binary = find(request.etcd.as_deref(), &request.search).await?;
    let laid = lay(request, binary, &progress).await?;
    Ok(laid.boot(progress.as_ref()).await?)
}

/// The etcd named, else the first one in the directories of `search`.
pub(crate) async fn find(named: Option<&Path>, search: &[PathBuf]) -> Outcome<Binary> {
    binary::find(named, search).await
}

/// Restores into a private directory.
pub(crate) async fn lay(request: Request, binary: Binary, progress: &Arc<dyn Progress>) -> Outcome<Laid> {
    for stale in directory::sweep(&request.base) {
        progress.say(&format!("removed {}, which a run that was killed had left", stale.display()));
    }
    let directory = Directory::create(&request.base, request.base_named)?;
    let restored = restore::run(restore_request(&request, &binary, &directory), Arc::clone(progress)).await?;
    progress.say(&fit_words(&binary, &restored));
    for change in &restored.changes {
        progress.say(&format!("changed: {change}"));
    }
    Ok(Laid { request, binary, directory, restored })
}

impl Laid {
    /// The database, which nobody has open yet.
    pub(crate) fn database(&self) -> PathBuf {
        self.directory.database()
    }

    /// Boots, waits until it serves, and compares.
    pub(crate) async fn boot(self, progress: &dyn Progress) -> Result<Scratch, NotServed> {
        let Self { request, binary, directory, restored } = self;
        let begun = Instant::now();
        let (etcd, endpoint, ready) = server::boot(&request, &binary, &directory, &restored, progress).await?;
        let served_after = begun.elapsed();
        let size = std::fs::metadata(directory.database()).map_or(0, |metadata| metadata.len());
        let proof = Proof::Inconclusive(String::new());
        let open = matches!(ready, Ready::Open(_));
        let mut scratch = Scratch { etcd, directory, endpoint, binary, restored, proof, served_after, open };
        scratch.proof = match ready {
            Ready::Open(client) => prove(&client, &scratch.restored, size, &request).await?,
            Ready::Closed => Proof::Inconclusive(
                "the backup has authentication on, and HashKV wants a user with the role root: give --user and --password-file".to_owned(),
            ),
        };
        Ok(scratch)
    }
}

fn restore_request(request: &Request, binary: &Binary, directory: &Directory) -> restore::Request {
    restore::Request {
        place: request.place.clone(),
        cluster: request.cluster.clone(),
        which: Some(request.which.clone()),
        opening: request.opening.clone(),
        signing_key: None,
        goal: Goal::DataDir {
            data_dir: directory.data(),
            wal_dir: None,
            name: request.name.clone(),
            members: vec![PlannedMember { name: request.name.clone(), peer_urls: vec![PEER_URL.to_owned()] }],
            advertise: Vec::new(),
            token: None,
            replace: false,
            owner: None,
        },
        bump: BumpChoice::None,
        // Data of a newer etcd lose their version rows, or are refused by name.
        target_version: Some(binary.version.to_string()),
        unknown_lease_ttl: i64::try_from(UNKNOWN_LEASE_TTL.as_secs()).unwrap_or(i64::MAX),
        for_talos: false,
        plan: None,
        plan_out: None,
        dry_run: false,
        scratch: true,
    }
}

fn fit_words(binary: &Binary, restored: &restore::Report) -> String {
    let taken = match (&restored.versions.etcd, &restored.versions.storage) {
        (Some(etcd), _) => format!("the backup is of etcd {etcd}"),
        (None, Some(storage)) => format!("the backup's data are of etcd {storage}"),
        (None, None) => "the backup does not tell which etcd it is of".to_owned(),
    };
    format!("etcd: {} at {}; {taken}", binary.version, binary.path.display())
}

/// Holds HashKV of what was booted against the manifest (design part 10).
async fn prove(client: &Client, restored: &restore::Report, size: u64, request: &Request) -> Outcome<Proof> {
    let Some(stated) = restored.hashkv else {
        return Ok(Proof::Inconclusive("the manifest states no HashKV".to_owned()));
    };
    let limit = TRY_HASH_LEAST + Duration::from_secs(size / TRY_HASH_SPEED);
    let reply = match client.hash_kv(Some(Revision(stated.revision)), limit).await {
        Ok(reply) => reply,
        Err(error) => {
            return match error.kind() {
                ErrorKind::PermissionDenied(_) => Ok(Proof::Inconclusive("the user given may not ask for HashKV".to_owned())),
                ErrorKind::Compacted(_) => Ok(Proof::Inconclusive(format!("revision {} is compacted in what was booted", stated.revision))),
                ErrorKind::Timeout(_) => Ok(Proof::Inconclusive(format!("HashKV was not answered in {} s", limit.as_secs()))),
                _ => Err(source_failure::failure("the booted etcd does not tell its HashKV", &error)),
            };
        }
    };
    let answered = HashKvValue { hash: reply.hash, revision: stated.revision, compact_revision: reply.compact_revision.0 };
    judge(stated, answered).map_err(|cause| {
        Failure::new(Code::Unproven, "the booted etcd does not hold what the backup's manifest states")
            .object(&restored.id)
            .cause(cause)
            .next(deep(request, restored))
    })
}

/// The command that looks at the backup itself.
fn deep(request: &Request, restored: &restore::Report) -> Vec<String> {
    let mut command = request.place.command(&["verify", &restored.id, "--deep", "--cluster", &restored.cluster]);
    command.extend(request.opening.flags());
    command
}

/// Compares two hashes of one revision. An error says that they are comparable and differ.
fn judge(stated: HashKvValue, answered: HashKvValue) -> Result<Proof, String> {
    let HashKvValue { hash, revision, compact_revision } = answered;
    // Without any compaction some releases say -1.
    if compact_revision.max(0) != stated.compact_revision.max(0) {
        return Ok(Proof::Inconclusive(format!(
            "the booted etcd hashes revision {revision} from compact revision {compact_revision}, the manifest from {}",
            stated.compact_revision
        )));
    }
    if hash != stated.hash {
        return Err(format!("HashKV at revision {revision} is {hash:08x}, the manifest states {:08x}", stated.hash));
    }
    Ok(Proof::Match(format!("{hash:08x} at revision {revision}, as the manifest states")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hashes_are_compared_only_from_one_compact_revision() {
        let stated = HashKvValue { hash: 7, revision: 30, compact_revision: 10 };
        assert!(matches!(judge(stated, stated), Ok(Proof::Match(_))));
        let never = HashKvValue { compact_revision: 0, ..stated };
        assert!(matches!(judge(never, HashKvValue { compact_revision: -1, ..stated }), Ok(Proof::Match(_))));
        assert!(matches!(judge(stated, HashKvValue { hash: 8, compact_revision: 20, ..stated }), Ok(Proof::Inconclusive(_))));
        let cause = judge(stated, HashKvValue { hash: 8, ..stated }).unwrap_err();
        assert!(cause.contains("00000008") && cause.contains("00000007"), "{cause}");
    }
}
