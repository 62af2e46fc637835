//! From a URL to a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::object::{BucketStore, Place};
use super::{FileStore, Store, StoreError, azure, gcs, s3};

/// With which checksum the parts and small objects of an S3 upload are protected on their way and in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PartChecksum {
    /// SHA-256. Costs nothing more, since the signature needs it too.
    #[default]
    Sha256,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// None beside what the signature covers, for stores that refuse the headers.
    Off,
}

/// How to reach a store. The default is right for `file://`, and for the clouds with their usual ways to credentials.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// `file://`: make the directory if it is missing.
    pub create_root: bool,
    /// S3: the region; else `AWS_REGION`, `AWS_DEFAULT_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// `https://HOST[:PORT]` of a compatible store or an emulator (`http://` is allowed). Else, for S3: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`,
    /// else AWS; for Google: `STORAGE_EMULATOR_HOST`, else Google; for Azure, where the account may be its path or its first label:
    /// `AZURE_STORAGE_CONNECTION_STRING`, `AZURE_STORAGE_ENDPOINT`, else the account's at Azure.
    pub endpoint: Option<String>,
    /// S3: whether the bucket goes into the path instead of the host name; by default so with an endpoint of its own.
    pub path_style: Option<bool>,
    /// A file of credentials. S3: `AWS_ACCESS_KEY_ID=…`, `AWS_SECRET_ACCESS_KEY=…` (and `AWS_SESSION_TOKEN`, `AWS_REGION`) lines. Google: the
    /// JSON of a service account's key, or what gcloud has left. Azure: lines as `AZURE_STORAGE_ACCOUNT_NAME=…` with
    /// `AZURE_STORAGE_ACCOUNT_KEY=…`. Without it: the environment, the workload's identity, the machine's role.
    pub credentials_file: Option<PathBuf>,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// S3: the checksum.
    pub checksum: PartChecksum,
}

/// The kinds of stores behind a network, and how a URL of each is written.
const CLOUDS: [(&str, Open, &str); 3] =
    [("s3", s3::open, "s3://BUCKET/PREFIX"), ("gs", gcs::open, "gs://BUCKET/PREFIX"), ("az", azure::open, "az://CONTAINER/PREFIX")];

type Open = fn(&Place<'_>, &StoreOptions) -> Result<BucketStore, StoreError>;

/// Whether `url` begins as one that [`open_store`] takes: `file:///path`, an absolute path, `s3://`, `gs://` or `az://`.
#[must_use]
pub fn is_store_url(url: &str) -> bool {
    url.starts_with('/') || url.starts_with("file:///") || cloud(url).is_some()
}

/// Splits a URL of a store behind a network.
fn cloud(url: &str) -> Option<(&'static str, Open, &'static str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    CLOUDS.iter().find(|(known, ..)| *known == scheme).map(|(scheme, open, form)| (*scheme, *open, *form, rest))
}

/// Opens the store that `url` names: `file:///path`, an absolute path, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
/// Nothing is sent over a network yet; a directory must exist (or is made, see [`StoreOptions::create_root`]).
///
/// # Errors
/// [`StoreError::Other`] for a URL that is none of these, for settings that cannot be, and for files of credentials or certificates that cannot be
/// read; what [`FileStore::open`] returns.
pub fn open_store(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    if let Some((scheme, open, form, rest)) = cloud(url) {
        let (bucket, prefix) = bucket_and_prefix(scheme, form, rest)?;
        return Ok(Arc::new(open(&Place { scheme, bucket, prefix }, options)?));
    }
    let path = if url.starts_with('/') { PathBuf::from(url) } else { file_path(url)? };
    let name = if url.starts_with('/') { format!("file://{url}") } else { url.to_owned() };
    Ok(Arc::new(FileStore::open(&path, &name, options.create_root)?))
}

/// The URL is not repeated where it may hold credentials.
fn refused(url: &str, detail: &str) -> StoreError {
    StoreError::Other { key: url.to_owned(), detail: detail.to_owned() }
}

fn bucket_and_prefix<'a>(scheme: &str, form: &str, rest: &'a str) -> Result<(&'a str, &'a str), StoreError> {
    if rest.contains('@') {
        let detail = "credentials do not belong into the URL; use the environment or a credentials file";
        return Err(refused(&format!("{scheme}://…"), detail));
    }
    let url = format!("{scheme}://{rest}");
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !(3..=255).contains(&bucket.len()) || !bucket.bytes().all(plain) {
        let what = if scheme == "az" { "container" } else { "bucket" };
        return Err(refused(&url, &format!("not a {what} name: {form}")));
    }
    let prefix = prefix.trim_end_matches('/');
    let good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(|byte| plain(byte) || b"=+:,".contains(&byte));
    if !prefix.is_empty() && !prefix.split('/').all(good) {
        return Err(refused(&url, "the prefix may hold letters, digits, `.-_=+:,` and single slashes between its parts"));
    }
    Ok((bucket, prefix))
}

/// What a store may be called, for messages.
fn forms(more: &str) -> String {
    let [(_, _, s3), (_, _, gcs), (_, _, azure)] = CLOUDS;
    format!("file:///PATH, {more}{s3}, {gcs} or {azure}")
}

fn file_path(text: &str) -> Result<PathBuf, StoreError> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("file") => {}
        Some("gcs") => return Err(refused("URL", "Google Cloud Storage is written gs://BUCKET/PREFIX")),
        Some("azure" | "abfs" | "abfss" | "wasb" | "wasbs") => {
            return Err(refused("URL", "Azure Blob Storage is written az://CONTAINER/PREFIX; the account is a setting of its own"));
        }
        Some(_) => return Err(refused("URL", &format!("not a store: {}", forms("")))),
        None => return Err(refused(text, &format!("not a store: {}", forms("an absolute path, ")))),
    }
    let url = url::Url::parse(text).map_err(|error| refused(text, &error.to_string()))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused(text, "write ? and # in a path as %3F and %23"));
    }
    let path = url.to_file_path().map_err(|()| refused(text, "a file URL has three slashes: file:///PATH"))?;
    if path == Path::new("/") {
        return Err(refused(text, "the root directory cannot be a repository"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn error(url: &str) -> String {
        open_store(url, &StoreOptions::default()).unwrap_err().to_string()
    }

    #[test]
    fn files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(open_store(path, &StoreOptions::default()).unwrap().root(), format!("file://{path}"));
        let url = format!("file://{path}/a%20b");
        assert!(matches!(open_store(&url, &StoreOptions::default()), Err(StoreError::NoRoot { root }) if root == url));
        let options = StoreOptions { create_root: true, ..StoreOptions::default() };
        assert_eq!(open_store(&url, &options).unwrap().root(), url);
        assert!(dir.path().join("a b").is_dir());
        assert!(error("file://relative/path").contains("three slashes"));
        assert!(error("file:///a?b").contains("%3F"));
        assert!(error("relative").contains("absolute"));
        assert!(error("file:///").contains("root directory"));
    }

    #[test]
    fn buckets() {
        let open = |url: &str| open_store(url, &StoreOptions::default()).map(|store| store.root().to_owned());
        assert_eq!(open("s3://bucket").unwrap(), "s3://bucket");
        assert_eq!(open("s3://bucket/a/b/").unwrap(), "s3://bucket/a/b");
        for bad in ["s3://", "s3://b", "s3:///x", "s3://bucket/a//b", "s3://bucket/../b", "s3://bucket/a b", "s3://bucket/a?b"] {
            assert!(open(bad).is_err(), "{bad}");
        }
        assert!(!error("s3://key:hunter2@bucket/x").contains("hunter2"));
        let options = StoreOptions { endpoint: Some("http://127.0.0.1:1/account".to_owned()), ..StoreOptions::default() };
        for url in ["gs://bucket/x", "az://container/x"] {
            assert_eq!(open_store(url, &options).unwrap().root(), url);
            assert!(is_store_url(url));
        }
        assert!(error("az://c").contains("not a container name"));
        assert!(!error("az://account:hunter2@container/x").contains("hunter2"));
        assert!(error("abfss://container@account.dfs.core.windows.net/x").contains("az://CONTAINER/PREFIX"));
        assert!(!error("https://key:hunter2@host/x").contains("hunter2"));
    }
}
