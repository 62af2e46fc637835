//! Finds out what a store really does, by doing it: stores that call themselves compatible differ.

use std::time::SystemTime;

use bytes::Bytes;

use super::limits::PART_SIZE;
use super::{ObjectInfo, Store, StoreError};

/// What was found out about one ability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The store does it.
    Yes,
    /// The store does not do it, or wrongly; in words.
    No(String),
    /// These credentials may not do it.
    Denied(String),
    /// It could not be tried; in words.
    Unknown(String),
}

impl Finding {
    /// Whether the store does it.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        *self == Finding::Yes
    }
}

/// What a store really does.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// A new object can be created.
    pub create: Finding,
    /// Creating where something is fails and changes nothing. Without it two hosts that write at once may overwrite each other's manifest.
    pub create_only: Finding,
    /// An object is read as it was written, at once.
    pub read_after_write: Finding,
    /// Parts of an object can be read.
    pub range_reads: Finding,
    /// A new object is listed at once.
    pub list_after_write: Finding,
    /// An object is replaced only if nobody has changed it. Needed by leases alone.
    pub conditional_replace: Finding,
    /// A big object can be written in parts.
    pub multipart: Finding,
    /// Objects can be deleted. [`Finding::Denied`] is fine, and good, for a host that only writes backups.
    pub delete: Finding,
    /// How many seconds the store's clock is ahead of this machine's, as far as the store tells.
    pub clock_ahead_seconds: Option<i64>,
    /// The keys of what the probe had to leave behind, when deleting is refused.
    pub left_behind: Vec<String>,
}

impl ProbeReport {
    /// Whether a repository can be kept here: all but deleting, replacing and create-only work.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        [&self.create, &self.read_after_write, &self.range_reads, &self.list_after_write, &self.multipart].into_iter().all(Finding::is_yes)
    }
}

fn failed(error: StoreError) -> Finding {
    match error {
        StoreError::Denied { detail, .. } => Finding::Denied(detail),
        error @ StoreError::Unreachable { .. } => Finding::Unknown(error.to_string()),
        error => Finding::No(error.to_string()),
    }
}

fn when(good: bool, otherwise: &str) -> Finding {
    if good { Finding::Yes } else { Finding::No(otherwise.to_owned()) }
}

/// Tries out what a store does, below a prefix of its own that no cluster can have, and removes everything again as far as allowed.
///
/// # Errors
/// Only when nothing can be said: the bucket or directory is missing, or the store cannot be reached at all.
pub async fn probe(store: &dyn Store) -> Result<ProbeReport, StoreError> {
    // Upper case: the name of a cluster is lower case, so an object left behind is never taken for one.
    let prefix = format!("PROBE-{}/", ulid::Ulid::generate());
    let keys = ["small", "mutable", "big"].map(|name| format!("{prefix}{name}"));
    let [small, mutable, big] = &keys;
    let text = Bytes::from_static(b"lifeboat probe");
    let created = match store.create(small, text.clone()).await {
        Err(error @ (StoreError::NoRoot { .. } | StoreError::Unreachable { .. })) => return Err(error),
        other => other,
    };
    let unknown = || Finding::Unknown("nothing could be written".to_owned());
    let mut report = ProbeReport {
        create: created.as_ref().map_or_else(|error| Finding::Denied(error.to_string()), |_| Finding::Yes),
        create_only: unknown(),
        read_after_write: unknown(),
        range_reads: unknown(),
        list_after_write: unknown(),
        conditional_replace: unknown(),
        multipart: unknown(),
        delete: unknown(),
        clock_ahead_seconds: None,
        left_behind: Vec::new(),
    };
    if let Err(error) = created {
        report.create = failed(error);
        return Ok(report);
    }
    report.clock_ahead_seconds = clock(store, small).await;
    report.read_after_write = match store.get(small, text.len() as u64).await {
        Ok((_, found)) => when(found == text, "other bytes were read than written"),
        Err(error) => failed(error),
    };
    report.range_reads = match store.get_range(small, 3..8).await {
        Ok(found) => when(found == text.slice(3..8), "a range of other bytes was read"),
        Err(error) => failed(error),
    };
    report.list_after_write = match store.list(&prefix).await {
        Ok(listed) => when(listed.iter().any(|object| object.key == *small), "the new object is not listed"),
        Err(error) => failed(error),
    };
    report.create_only = create_only(store, small, &text).await;
    report.conditional_replace = conditional_replace(store, mutable).await;
    report.multipart = multipart(store, big).await;
    report.delete = Finding::Yes;
    for key in keys {
        if let Err(error) = remove(store, &key).await {
            report.delete = failed(error);
            report.left_behind.push(key);
        }
    }
    Ok(report)
}

async fn clock(store: &dyn Store, key: &str) -> Option<i64> {
    let written = store.written_at(key).await.ok()??;
    let seconds = match written.duration_since(SystemTime::now()) {
        Ok(ahead) => i64::try_from(ahead.as_secs()).ok()?,
        Err(behind) => -i64::try_from(behind.duration().as_secs()).ok()?,
    };
    Some(seconds)
}

async fn create_only(store: &dyn Store, key: &str, there: &Bytes) -> Finding {
    let other = Bytes::from_static(b"LIFEBOAT PROBE, overwritten");
    match store.create(key, other.clone()).await {
        Ok(_) => Finding::No("an object was overwritten although it was to be created only if missing".to_owned()),
        Err(StoreError::AlreadyExists { .. }) => match store.get(key, other.len() as u64).await {
            Ok((_, found)) => when(found == *there, "creation was refused, and yet the object was changed"),
            Err(error) => failed(error),
        },
        Err(error) => failed(error),
    }
}

async fn conditional_replace(store: &dyn Store, key: &str) -> Finding {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let try_it = async {
        let first = store.replace(key, bytes("one"), None).await?;
        let Some(stale) = first.etag else { return Ok(Finding::No("the store gives no etags".to_owned())) };
        store.replace(key, bytes("two"), Some(&stale)).await?;
        match store.replace(key, bytes("three"), Some(&stale)).await {
            Err(StoreError::Changed { .. }) => Ok(Finding::Yes),
            Err(error) => Err(error),
            Ok(_) => Ok(Finding::No("an object was replaced although its etag was another".to_owned())),
        }
    };
    try_it.await.unwrap_or_else(failed)
}

async fn multipart(store: &dyn Store, key: &str) -> Finding {
    let pattern: Vec<u8> = (0..PART_SIZE + 1024).map(|at| (at / 251) as u8 ^ at as u8).collect();
    let pattern = Bytes::from(pattern);
    match upload(store, key, &pattern).await {
        Ok(info) if info.size != pattern.len() as u64 => {
            Finding::No(format!("{} bytes were written, {} are there", pattern.len(), info.size))
        }
        Ok(_) => {
            let seam = PART_SIZE - 16..PART_SIZE + 16;
            match store.get_range(key, seam.start as u64..seam.end as u64).await {
                Ok(found) => when(found == pattern.slice(seam), "the parts were not put together in order"),
                Err(error) => failed(error),
            }
        }
        Err(error) => failed(error),
    }
}

async fn upload(store: &dyn Store, key: &str, bytes: &Bytes) -> Result<ObjectInfo, StoreError> {
    let mut upload = store.upload(key).await?;
    if let Err(error) = upload.write(bytes.clone()).await {
        upload.abort().await;
        return Err(error);
    }
    upload.complete().await
}

/// Deletes, and looks whether it is gone. What was never written is gone already.
async fn remove(store: &dyn Store, key: &str) -> Result<(), StoreError> {
    match store.delete(key).await {
        Err(error) if matches!(store.head(key).await, Err(StoreError::NotFound { .. })) => {
            // Denied, with nothing there to delete: still an answer about deleting.
            if matches!(error, StoreError::Denied { .. }) { Err(error) } else { Ok(()) }
        }
        other => other,
    }
}
