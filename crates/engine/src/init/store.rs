//! The store: making the repository, and finding out what the store really does.

use jiff::Timestamp;
use vault::name::{ClusterName, RepositoryId};
use vault::repository::{Place, Repository};
use vault::store::{Finding, ProbeReport, probe};

use etcd_store::id::ClusterId;

use crate::exclusion::state_directory;
use crate::failure::{Code, Failure, Outcome};
use crate::place::{self, PlaceOptions};
use crate::{known_stores, store_failure};

/// A store whose clock differs by more than this many seconds makes the ages of backups wrong.
const CLOCK_TOLERANCE: u64 = 120;

/// A store on which backups can be kept.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The repository.
    pub repository: Repository,
    /// Whether it was made just now.
    pub made: bool,
    /// What the store does, by name, in words.
    pub abilities: Vec<(&'static str, String)>,
    /// What is not as good as it could be.
    pub warnings: Vec<String>,
}

/// Makes the repository where nothing is, then tries the store out. Both can be done again.
///
/// The repository comes first: a store that lets nobody delete keeps what the trial wrote, and that must not make an empty place look like a foreign
/// one.
pub async fn prepare(options: &PlaceOptions) -> Outcome<Prepared> {
    let (repository, made) = place::open_or_init(options).await?;
    known_stores::remember(state_directory().as_deref(), &options.url, repository.id());
    let report = probe(&**repository.store())
        .await
        .map_err(|error| store_failure::failure_at(&options.url, "the store cannot be tried out", &error))?;
    let abilities = abilities(&report);
    if !report.is_usable() {
        let faults: Vec<String> =
            abilities.iter().filter(|(_, word)| word != "yes").map(|(name, word)| format!("{name}: {word}")).collect();
        return Err(Failure::new(Code::Failed, "this store cannot keep backups").object(&options.url).cause(faults.join("; ")).again());
    }
    let warnings = warnings(&report);
    Ok(Prepared { repository, made, abilities, warnings })
}

fn abilities(report: &ProbeReport) -> Vec<(&'static str, String)> {
    let word = |finding: &Finding| match finding {
        Finding::Yes => "yes".to_owned(),
        Finding::No(why) => format!("no ({why})"),
        Finding::Denied(_) => "denied".to_owned(),
        Finding::Unknown(why) => format!("unknown ({why})"),
    };
    vec![
        ("create", word(&report.create)),
        ("create-only", word(&report.create_only)),
        ("read after write", word(&report.read_after_write)),
        ("ranges", word(&report.range_reads)),
        ("list after write", word(&report.list_after_write)),
        ("multipart", word(&report.multipart)),
        ("conditional replace", word(&report.conditional_replace)),
        ("delete", word(&report.delete)),
    ]
}

fn warnings(report: &ProbeReport) -> Vec<String> {
    let mut warnings = Vec::new();
    if !report.create_only.is_yes() {
        warnings
            .push("the store does not refuse to overwrite an object, so two hosts must not back up into it at the same moment".to_owned());
    }
    if let Some(ahead) = report.clock_ahead_seconds.filter(|ahead| ahead.unsigned_abs() > CLOCK_TOLERANCE) {
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        warnings.push(format!("the store's clock is {} s {direction} this machine's: one of them is wrong", ahead.unsigned_abs()));
    }
    if !report.left_behind.is_empty() {
        warnings.push(format!(
            "deleting is refused, which is good for a host that only writes backups; the trial left {} small objects behind: {}",
            report.left_behind.len(),
            report.left_behind.join(", ")
        ));
    }
    warnings
}

/// Whose backups the repository holds under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenant {
    /// Nobody's.
    Nobody,
    /// This cluster's, or of one that does not tell its id.
    Same,
    /// Another etcd's: a cluster that was restored since, or simply another one.
    Other,
}

/// Looks whose backups are kept under a name. A cluster without an id is taken for any: its first backup tells more.
pub async fn tenant(repository: &Repository, options: &PlaceOptions, name: &ClusterName, id: Option<ClusterId>) -> Outcome<Tenant> {
    let clusters = repository.clusters().await.map_err(|error| place::failure(options, "the repository cannot be listed", &error))?;
    if !clusters.contains(name) {
        return Ok(Tenant::Nobody);
    }
    let catalog = place::catalog(repository, options, name).await?;
    let ids: Vec<Option<ClusterId>> = catalog.backups.iter().map(|backup| backup.manifest.cluster_id).collect();
    Ok(match ids[..] {
        [] => Tenant::Nobody,
        _ if ids.iter().any(|known| known.is_none_or(|known| id.is_none_or(|id| known == id))) => Tenant::Same,
        _ => Tenant::Other,
    })
}

/// What is at a store now, for a second look. Nothing is written.
pub async fn look(options: &PlaceOptions) -> Outcome<Option<RepositoryId>> {
    let store = match place::open_store(options, false) {
        Ok(store) => store,
        Err(failure) if failure.code == Code::NoRepository => return Ok(None),
        Err(failure) => return Err(failure),
    };
    match Repository::look(store).await.map_err(|error| place::failure(options, "the repository cannot be opened", &error))? {
        Place::Repository(repository) => Ok(Some(*repository.id())),
        Place::Empty => Ok(None),
        Place::Other => Err(Failure::new(Code::NoRepository, "there is no repository here")
            .object(&options.url)
            .cause("the place holds other things and no lifeboat.json; check the store's url")
            .again()),
    }
}

/// The date, for the head of the configuration.
#[must_use]
pub fn today() -> String {
    Timestamp::now().strftime("%Y-%m-%d").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ProbeReport {
        let yes = || Finding::Yes;
        ProbeReport {
            create: yes(),
            create_only: yes(),
            read_after_write: yes(),
            range_reads: yes(),
            list_after_write: yes(),
            conditional_replace: yes(),
            multipart: yes(),
            delete: yes(),
            clock_ahead_seconds: Some(0),
            left_behind: Vec::new(),
        }
    }

    #[test]
    fn a_good_store_is_not_warned_about() {
        assert!(warnings(&report()).is_empty());
        assert!(abilities(&report()).iter().all(|(_, word)| word == "yes"));
    }

    #[test]
    fn what_is_missing_is_said() {
        let report = ProbeReport {
            create_only: Finding::No("overwritten".to_owned()),
            delete: Finding::Denied("AccessDenied".to_owned()),
            clock_ahead_seconds: Some(-3600),
            left_behind: vec!["PROBE-1/small".to_owned()],
            ..report()
        };
        let text = warnings(&report).join("\n");
        for word in ["does not refuse to overwrite", "3600 s behind", "PROBE-1/small"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(abilities(&report).contains(&("delete", "denied".to_owned())));
    }
}
