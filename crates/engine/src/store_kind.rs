//! What kind of store a URL names, and the words and flags that go with it.

/// The kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// `file://`, or an absolute path.
    Directory,
    /// `s3://`.
    S3,
    /// `gs://`.
    Google,
    /// `az://`.
    Azure,
}

/// How the URL of a store is written, for questions, help and errors.
pub const STORE_URLS: &str = "file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix";

impl StoreKind {
    /// The kind that a URL names by its scheme; anything else is taken for a directory, and refused when it is opened.
    #[must_use]
    pub fn of(url: &str) -> Self {
        match url.split_once("://") {
            Some(("s3", _)) => Self::S3,
            Some(("gs", _)) => Self::Google,
            Some(("az", _)) => Self::Azure,
            _ => Self::Directory,
        }
    }

    /// Whether credentials are needed to reach it.
    #[must_use]
    pub fn wants_credentials(self) -> bool {
        self != Self::Directory
    }

    /// The flag that names its endpoint.
    #[must_use]
    pub fn endpoint_flag(self) -> &'static str {
        if self == Self::S3 { "--s3-endpoint" } else { "--store-endpoint" }
    }

    /// The flag that names a file with its credentials.
    #[must_use]
    pub fn credentials_flag(self) -> &'static str {
        if self == Self::S3 { "--s3-credentials-file" } else { "--store-credentials-file" }
    }

    /// What its credentials are called in the environment, for a sentence; empty for a directory.
    #[must_use]
    pub fn credentials(self) -> &'static str {
        match self {
            Self::Directory => "",
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_NAME with AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
        }
    }

    /// What a file with its credentials holds, and where one might lie: for the configuration that `init` writes.
    #[must_use]
    pub fn credentials_file(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Directory => None,
            Self::S3 => Some(("AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=… lines", "/etc/lifeboat/s3.env")),
            Self::Google => Some(("The JSON of a service account's key", "/etc/lifeboat/gcs.json")),
            Self::Azure => Some(("AZURE_STORAGE_ACCOUNT_NAME=… and AZURE_STORAGE_ACCOUNT_KEY=… lines", "/etc/lifeboat/azure.env")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides() {
        for (url, kind) in [
            ("s3://b/p", StoreKind::S3),
            ("gs://b/p", StoreKind::Google),
            ("az://c/p", StoreKind::Azure),
            ("file:///s3/x", StoreKind::Directory),
            ("/gs", StoreKind::Directory),
        ] {
            assert_eq!(StoreKind::of(url), kind, "{url}");
            assert_eq!(kind.credentials_file().is_some(), kind.wants_credentials());
        }
    }
}
