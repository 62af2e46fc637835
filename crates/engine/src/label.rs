//! What people, and Lifeboat itself, say of a backup afterwards: pins and tags. Each is one mark; nothing stored is changed.

use std::collections::BTreeSet;

use jiff::Timestamp;
use vault::digest::Sha256;
use vault::key::Key;
use vault::limits::SMALL_JSON_BYTES;
use vault::manifest::plain_text;
use vault::mark::{Mark, Pin, Previous, Statement, Tags, Unpin};
use vault::name::{ClusterName, MarkId, Tag};
use vault::repository::catalog::Backup;
use vault::repository::{Repository, RepositoryError};
use vault::sign::{SigningKey, TrustedSigners};

use crate::failure::{Code, Failure, Outcome};
use crate::place::{self, PlaceOptions};
use crate::store_failure;

/// Writes marks one after the other, each in the knowledge of the one before it.
#[derive(Debug)]
pub struct Scribe<'a> {
    repository: &'a Repository,
    cluster: &'a ClusterName,
    signing: Option<&'a SigningKey>,
    newest: Option<Previous>,
}

impl<'a> Scribe<'a> {
    /// A writer that has seen the marks up to `newest`.
    #[must_use]
    pub fn new(repository: &'a Repository, cluster: &'a ClusterName, signing: Option<&'a SigningKey>, newest: Option<Previous>) -> Self {
        Self { repository, cluster, signing, newest }
    }

    /// Writes one mark, signed where there is a key.
    ///
    /// # Errors
    /// What [`Repository::write_mark`] says.
    pub async fn write(&mut self, statement: Statement, now: Timestamp) -> Result<Mark, RepositoryError> {
        let mark = self.repository.write_mark(self.cluster, statement, self.newest, self.signing, now).await?;
        self.newest = Some(Previous { id: mark.id, sha256: Sha256::of(&mark.encode()?) });
        Ok(mark)
    }
}

/// What is to be said of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It does not expire.
    Pin(Option<String>),
    /// It may expire again.
    Unpin,
    /// It has these tags.
    Tag(Vec<Tag>),
    /// It has these tags no more.
    Untag(Vec<Tag>),
}

/// The statement that makes a wish true; none where it is true already. Pure.
///
/// A pin that comes with a reason is always written: two people may have two reasons.
#[must_use]
pub fn statement(backup: &Backup, wish: &Wish) -> Option<Statement> {
    let id = backup.id();
    let differing = |tags: &[Tag], there: bool| -> Option<Tags> {
        let tags: BTreeSet<Tag> = tags.iter().filter(|tag| backup.tags.contains(*tag) == there).cloned().collect();
        (!tags.is_empty()).then(|| Tags { tags: tags.into_iter().collect() })
    };
    match wish {
        Wish::Pin(None) if !backup.pins.is_empty() => None,
        Wish::Pin(reason) => Some(Statement::Pin(id, Pin { reason: reason.as_deref().map(plain_text) })),
        Wish::Unpin if backup.pins.is_empty() => None,
        Wish::Unpin => Some(Statement::Unpin(id, Unpin { pins: backup.pins.iter().copied().collect() })),
        Wish::Tag(tags) => differing(tags, false).map(|tags| Statement::Tag(id, tags)),
        Wish::Untag(tags) => differing(tags, true).map(|tags| Statement::Untag(id, tags)),
    }
}

/// Refuses where a mark would be written in vain: with trusted signers only what they sign counts. `what` is what is written.
///
/// # Errors
/// [`crate::Code::Usage`], with the flag that is missing.
pub fn check_signer(signers: &TrustedSigners, signing: Option<&SigningKey>, what: &str) -> Outcome<()> {
    if signers.is_empty() || signing.is_some_and(|key| signers.keys().contains(key.public())) {
        return Ok(());
    }
    let cause = match signing {
        None => "trusted signers are configured, so what is not signed counts for nobody".to_owned(),
        Some(key) => format!("the signing key {} is not among the trusted signers, so its word would count for nobody", key.public().id()),
    };
    Err(Failure::usage(format!("{what} needs a trusted signature")).cause(cause).again_with(["--signing-key", "sign.key"]))
}
/// Brings a mark to another store of the repository, byte for byte.
///
/// # Errors
/// That store cannot be reached or refuses; it holds another repository.
pub async fn bring(from: &Repository, cluster: &ClusterName, mark: MarkId, to: &PlaceOptions) -> Outcome<()> {
    let target = place::open(to).await?;
    if target.id() != from.id() {
        return Err(Failure::new(Code::WrongCluster, "the store holds another repository").object(&to.url));
    }
    let wrong = |error: &vault::store::StoreError| store_failure::failure("the mark cannot be brought over", error);
    // The signature first: a mark without it would be another one.
    for key in [Key::MarkSignature(cluster.clone(), mark), Key::Mark(cluster.clone(), mark)] {
        let key = key.to_string();
        let bytes = match from.store().get(&key, SMALL_JSON_BYTES as u64).await {
            Ok((_, bytes)) => bytes,
            Err(vault::store::StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(wrong(&error)),
        };
        target.store().create(&key, bytes).await.map_err(|error| wrong(&error))?;
    }
    Ok(())
}
