//! Which credentials Google Cloud Storage is shown: <https://cloud.google.com/docs/authentication/application-default-credentials>.

use std::path::{Path, PathBuf};

use object_store::gcp::GoogleCloudStorageBuilder;

use super::super::object::client::{from_env, read_small};

/// The file named, else that of `GOOGLE_APPLICATION_CREDENTIALS`, else gcloud's own in the home directory; with none of them the metadata
/// server of the machine or of the workload is asked. Errors name the file, never its content.
pub(super) fn apply(builder: GoogleCloudStorageBuilder, file: Option<&Path>) -> Result<GoogleCloudStorageBuilder, String> {
    let named = file.map(Path::to_path_buf).or_else(|| from_env(&["GOOGLE_APPLICATION_CREDENTIALS"]).map(PathBuf::from));
    let Some(path) = named.or_else(well_known) else { return Ok(builder) };
    let text = read_small(&path)?;
    let kind = kind(&text).map_err(|detail| format!("{}: {detail}", path.display()))?;
    Ok(match kind {
        Kind::ServiceAccount => builder.with_service_account_key(text),
        Kind::User => builder.with_application_credentials(path.display().to_string()),
    })
}

/// What `gcloud auth application-default login` has left.
fn well_known() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("HOME")?).join(".config/gcloud/application_default_credentials.json");
    path.exists().then_some(path)
}

/// The kinds of files that are understood.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    ServiceAccount,
    User,
}

/// Looks at a file before `object_store` does, whose errors may quote it.
fn kind(text: &str) -> Result<Kind, String> {
    let file: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("not JSON, at line {} column {}", error.line(), error.column()))?;
    let (kind, fields) = match file.get("type").and_then(serde_json::Value::as_str) {
        Some("service_account") => (Kind::ServiceAccount, ["private_key", "private_key_id", "client_email"]),
        Some("authorized_user") => (Kind::User, ["client_id", "client_secret", "refresh_token"]),
        Some("external_account" | "impersonated_service_account" | "external_account_authorized_user") => {
            return Err("federated and impersonated credentials are not supported: use a service account's key, or the service account \
                        of the machine or workload (without a file)"
                .to_owned());
        }
        _ => return Err("not a credentials file: \"type\" is neither service_account nor authorized_user".to_owned()),
    };
    match fields.iter().find(|name| !file.get(**name).is_some_and(serde_json::Value::is_string)) {
        Some(name) => Err(format!("{name} is missing")),
        None => Ok(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let key = r#"{"type":"service_account","private_key":"k","private_key_id":"i","client_email":"e"}"#;
        assert_eq!(kind(key), Ok(Kind::ServiceAccount));
        assert_eq!(kind(r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"t"}"#), Ok(Kind::User));
    }

    #[test]
    fn errors_say_what_is_wrong_and_never_the_secret() {
        for (text, want) in [
            ("hunter2", "not JSON, at line 1 column 1"),
            (r#"{"type":"hunter2"}"#, "not a credentials file"),
            (r#"{"type":"external_account"}"#, "federated"),
            (r#"{"type":"service_account","private_key":{"hunter2":1}}"#, "private_key is missing"),
            (r#"{"type":"authorized_user","client_id":"c","client_secret":"hunter2"}"#, "refresh_token is missing"),
        ] {
            let error = kind(text).err().unwrap_or_default();
            assert!(error.starts_with(want) && !error.contains("hunter2"), "{error}");
        }
    }
}
