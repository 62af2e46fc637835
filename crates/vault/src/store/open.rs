//! From a URL to a store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{FileStore, S3Store, Store, StoreError};

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

/// How to reach a store. The default is right for `file://`, and for S3 with the cloud's usual ways to credentials.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// `file://`: make the directory if it is missing.
    pub create_root: bool,
    /// S3: the region; else `AWS_REGION`, `AWS_DEFAULT_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// S3: `https://HOST[:PORT]` of a compatible store (`http://` is allowed); else `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, else AWS.
    pub endpoint: Option<String>,
    /// S3: whether the bucket goes into the path instead of the host name; by default so with an endpoint of its own.
    pub path_style: Option<bool>,
    /// S3: a file of `AWS_ACCESS_KEY_ID=…`, `AWS_SECRET_ACCESS_KEY=…` (and `AWS_SESSION_TOKEN`, `AWS_REGION`) lines. Without it: the
    /// environment, web identity, the container's or the machine's role.
    pub credentials_file: Option<PathBuf>,
    /// S3: certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// S3: the checksum.
    pub checksum: PartChecksum,
}

/// Opens the store that `url` names: `file:///path`, an absolute path, or `s3://bucket/prefix`. Nothing is sent to S3 yet; a directory
/// must exist (or is made, see [`StoreOptions::create_root`]).
///
/// # Errors
/// [`StoreError::Other`] for a URL that is none of these; what [`FileStore::open`] and [`S3Store::new`] return.
pub fn open_store(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = bucket_and_prefix(rest)?;
        return Ok(Arc::new(S3Store::new(bucket, prefix, options)?));
    }
    let path = if url.starts_with('/') { PathBuf::from(url) } else { file_path(url)? };
    let name = if url.starts_with('/') { format!("file://{url}") } else { url.to_owned() };
    Ok(Arc::new(FileStore::open(&path, &name, options.create_root)?))
}

/// The URL is not repeated where it may hold credentials.
fn refused(url: &str, detail: &str) -> StoreError {
    StoreError::Other { key: url.to_owned(), detail: detail.to_owned() }
}

fn bucket_and_prefix(rest: &str) -> Result<(&str, &str), StoreError> {
    if rest.contains('@') {
        return Err(refused("s3://…", "credentials do not belong into the URL; use the environment or a credentials file"));
    }
    let url = format!("s3://{rest}");
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !(3..=255).contains(&bucket.len()) || !bucket.bytes().all(plain) {
        return Err(refused(&url, "not a bucket name: s3://BUCKET/PREFIX"));
    }
    let prefix = prefix.trim_end_matches('/');
    let good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(|byte| plain(byte) || b"=+:,".contains(&byte));
    if !prefix.is_empty() && !prefix.split('/').all(good) {
        return Err(refused(&url, "the prefix may hold letters, digits, `.-_=+:,` and single slashes between its parts"));
    }
    Ok((bucket, prefix))
}

fn file_path(text: &str) -> Result<PathBuf, StoreError> {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some("file") => {}
        Some("gs" | "az" | "azure" | "abfs" | "abfss") => {
            return Err(refused(text, "this kind of store is not supported yet; file:// and s3:// are"));
        }
        Some(_) => return Err(refused("URL", "not a store: file:///PATH or s3://BUCKET/PREFIX")),
        None => return Err(refused(text, "not a store: file:///PATH, an absolute path, or s3://BUCKET/PREFIX")),
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
        assert!(error("gs://bucket/x").contains("not supported yet"));
        assert!(error("az://bucket/x").contains("not supported yet"));
        assert!(!error("https://key:hunter2@host/x").contains("hunter2"));
    }
}
