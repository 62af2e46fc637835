//! Accepting a history: the operator says that a new one is this cluster's (design part 4, "Which cluster").
//!
//! What is to be accepted is worked out from the catalog alone, so that it can be shown before anybody consents; writing it is one mark.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vault::lineage::standing::{AcceptedBy, Standing};
use vault::lineage::{Fingerprint, LineageName};
use vault::mark::{Accept, Mark, Statement};
use vault::repository::{Catalog, Repository};
use vault::sign::{SigningKey, TrustedSigners};

use crate::failure::{Code, Failure, Outcome};
use crate::place::{self, PlaceOptions};

/// What accepting a lineage would say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// The lineage.
    pub lineage: LineageName,
    /// The fingerprint that is taken for it, none for snapshots without one.
    pub fingerprint: Option<Fingerprint>,
    /// How many unconfirmed backups of it have this fingerprint.
    pub backups: usize,
    /// The last revision of the newest of them.
    pub revision: Option<i64>,
    /// Nothing is unconfirmed: nothing is left to be accepted.
    pub is_accepted: bool,
}

/// The words for why a lineage is, or is not, accepted.
#[must_use]
pub fn standing_words(standing: &Standing) -> String {
    match standing {
        Standing::Accepted(AcceptedBy::Mark) => "accepted by an operator".to_owned(),
        Standing::Accepted(AcceptedBy::First) => "accepted: the cluster's first".to_owned(),
        Standing::Accepted(AcceptedBy::Restore) => "accepted: begun by a restore that Lifeboat made".to_owned(),
        Standing::Accepted(AcceptedBy::SameFingerprint(of)) => format!("accepted: the same kube-system UID as {of}"),
        Standing::Unconfirmed(doubt) => format!("UNCONFIRMED: {doubt}"),
    }
}

/// Finds the lineage that `text` names, wholly or by a unique beginning such as its number.
pub fn find(catalog: &Catalog, text: &str, options: &PlaceOptions) -> Outcome<LineageName> {
    let named: Vec<LineageName> = catalog.lineages.keys().filter(|name| name.to_string().starts_with(text)).copied().collect();
    let list = options.cluster_command(&["lineage", "list"], &catalog.cluster);
    let wrong = |what: String, cause: String| Err(Failure::new(Code::WrongCluster, what).object(&catalog.cluster).cause(cause).next(list));
    match &named[..] {
        [name] if !text.is_empty() => Ok(*name),
        [] => wrong(format!("there is no lineage '{}'", vault::manifest::plain_text(text)), listed("it has", catalog.lineages.keys())),
        several => wrong(format!("'{text}' could be {} lineages", several.len()), listed("these begin so:", several)),
    }
}

fn listed<'a>(lead: &str, names: impl IntoIterator<Item = &'a LineageName>) -> String {
    let names: Vec<String> = names.into_iter().map(ToString::to_string).collect();
    if names.is_empty() { format!("{lead} none") } else { format!("{lead} {}", names.join(", ")) }
}

/// What is to be accepted. `fingerprint` picks one where the unconfirmed backups of the lineage have several; `none` is one without.
pub fn plan(catalog: &Catalog, lineage: LineageName, fingerprint: Option<&str>) -> Outcome<Acceptance> {
    let Some(entry) = catalog.lineages.get(&lineage) else {
        return Err(Failure::new(Code::WrongCluster, format!("there is no lineage {lineage}")).object(&catalog.cluster).again());
    };
    let unconfirmed = || catalog.backups.iter().filter(|backup| backup.manifest.lineage == lineage && backup.unconfirmed.is_some());
    let mut seen: BTreeSet<Option<Fingerprint>> = unconfirmed().map(|backup| backup.manifest.fingerprint.clone()).collect();
    let is_accepted = entry.standing.is_accepted() && seen.is_empty();
    if seen.is_empty() {
        seen.insert(entry.lineage.fingerprint.clone());
    }
    let chosen = match fingerprint {
        None => None,
        Some("none") => Some(None),
        Some(text) => Some(Some(text.parse::<Fingerprint>().map_err(|error| Failure::usage(format!("--fingerprint: {error}")).again())?)),
    };
    let word = |fingerprint: &Option<Fingerprint>| fingerprint.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let names = || seen.iter().map(word).collect::<Vec<_>>().join(", ");
    let wrong =
        |what: &str| Failure::new(Code::WrongCluster, what).object(lineage).cause(format!("its unconfirmed backups have: {}", names()));
    let fingerprint = match (chosen, seen.len()) {
        (Some(chosen), _) if seen.contains(&chosen) => chosen,
        (Some(_), _) => return Err(wrong("no unconfirmed backup of this lineage has that fingerprint").again()),
        (None, 0 | 1) => seen.first().cloned().flatten(),
        (None, _) => {
            let failure = wrong("the backups of this lineage are of several clusters, and one must be named");
            let first = seen.first().map(word).unwrap_or_default();
            return Err(failure.again_with(["--fingerprint", &first]));
        }
    };
    let covered = || unconfirmed().filter(|backup| backup.manifest.fingerprint == fingerprint);
    let revision = covered().map(|backup| backup.manifest.revision).max();
    Ok(Acceptance { lineage, backups: covered().count(), revision, fingerprint, is_accepted })
}

/// Refuses where the mark would be written in vain: with trusted signers only what they sign counts.
pub fn check_signer(signers: &TrustedSigners, signing: Option<&SigningKey>) -> Outcome<()> {
    let trusted = |key: &SigningKey| signers.keys().contains(key.public());
    if signers.is_empty() || signing.is_some_and(trusted) {
        return Ok(());
    }
    let cause = match signing {
        None => "trusted signers are configured, so an unsigned acceptance would count for nobody".to_owned(),
        Some(key) => format!("the signing key {} is not among the trusted signers, so its word would count for nobody", key.public().id()),
    };
    Err(Failure::usage("the acceptance needs a trusted signature").cause(cause).again_with(["--signing-key", "sign.key"]))
}

/// Writes the mark, and answers with it and with how the lineage stands afterwards, read back from the store.
pub async fn accept(
    repository: &Repository,
    options: &PlaceOptions,
    catalog: &Catalog,
    acceptance: &Acceptance,
    signing: Option<&SigningKey>,
) -> Outcome<(Mark, Standing)> {
    let statement = Statement::Accept(acceptance.lineage, Accept { fingerprint: acceptance.fingerprint.clone() });
    let mark = repository
        .write_mark(&catalog.cluster, statement, catalog.newest_mark(), signing, Timestamp::now())
        .await
        .map_err(|error| place::failure(options, "the lineage cannot be accepted", &error))?;
    let after = place::catalog(repository, options, &catalog.cluster).await?;
    let standing = after.lineages.get(&acceptance.lineage).map(|entry| entry.standing.clone());
    match standing {
        Some(standing) if standing.is_accepted() => Ok((mark, standing)),
        _ => Err(Failure::failed("the acceptance was written and does not show").object(mark.id).again()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use vault::lineage::Lineage;
    use vault::store::MemoryStore;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    async fn bench(signers: TrustedSigners) -> (Repository, Catalog) {
        let repository = Repository::init(Arc::new(MemoryStore::new()), Timestamp::UNIX_EPOCH).await.unwrap().with_signers(signers);
        let cluster = "prod".parse().unwrap();
        for (name, parent, fingerprint) in [("0001-file-0", None, "uid-1"), ("0002-file-5", Some("0001-file-0"), "uid-2")] {
            let parent = parent.map(|name: &str| name.parse().unwrap());
            let lineage = Lineage::new(name.parse().unwrap(), parent, fingerprint.parse().ok());
            repository.write_lineage(&cluster, &lineage).await.unwrap();
        }
        let catalog = repository.catalog(&cluster).await.unwrap();
        (repository, catalog)
    }

    fn options() -> PlaceOptions {
        PlaceOptions { url: "memory://".to_owned(), ..PlaceOptions::default() }
    }

    #[test]
    fn a_lineage_is_named_by_a_unique_beginning() {
        let (_, catalog) = run(bench(TrustedSigners::default()));
        let find = |text: &str| find(&catalog, text, &options());
        assert_eq!(find("0002").unwrap().to_string(), "0002-file-5");
        assert_eq!(find("0001-file-0").unwrap().to_string(), "0001-file-0");
        for text in ["", "000", "0003", "2"] {
            assert_eq!(find(text).unwrap_err().code, Code::WrongCluster, "{text}");
        }
        assert!(find("000").unwrap_err().cause.unwrap().contains("0002-file-5"));
    }

    #[test]
    fn accepting_makes_it_accepted() {
        run(async {
            let (repository, catalog) = bench(TrustedSigners::default()).await;
            let lineage = find(&catalog, "0002", &options()).unwrap();
            assert!(!catalog.lineages[&lineage].standing.is_accepted());
            let acceptance = plan(&catalog, lineage, None).unwrap();
            assert_eq!((acceptance.fingerprint.as_ref().unwrap().to_string().as_str(), acceptance.is_accepted), ("uid-2", false));
            let (_, standing) = accept(&repository, &options(), &catalog, &acceptance, None).await.unwrap();
            assert_eq!(standing, Standing::Accepted(AcceptedBy::Mark));
            let after = repository.catalog(&catalog.cluster).await.unwrap();
            assert!(plan(&after, lineage, None).unwrap().is_accepted);
        });
    }

    #[test]
    fn a_fingerprint_that_no_backup_has_is_refused() {
        let (_, catalog) = run(bench(TrustedSigners::default()));
        let lineage = find(&catalog, "0002", &options()).unwrap();
        assert!(plan(&catalog, lineage, Some("uid-2")).is_ok());
        for other in ["uid-1", "none"] {
            assert_eq!(plan(&catalog, lineage, Some(other)).unwrap_err().code, Code::WrongCluster);
        }
        assert_eq!(plan(&catalog, lineage, Some("not a uid")).unwrap_err().code, Code::Usage);
    }

    #[test]
    fn with_trusted_signers_only_their_word_is_written() {
        let (own, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let signers = TrustedSigners::new(vec![own.public().clone()]);
        assert!(check_signer(&signers, Some(&own)).is_ok() && check_signer(&TrustedSigners::default(), None).is_ok());
        for wrong in [None, Some(&other)] {
            assert_eq!(check_signer(&signers, wrong).unwrap_err().code, Code::Usage);
        }
        run(async {
            let (repository, catalog) = bench(signers).await;
            let lineage = find(&catalog, "0002", &options()).unwrap();
            let acceptance = plan(&catalog, lineage, None).unwrap();
            assert!(accept(&repository, &options(), &catalog, &acceptance, Some(&own)).await.is_ok());
        });
    }
}
