//! Addresses and secrets from files. Neither is ever part of an error.

use std::io::Read;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use url::Url;

use crate::limits::SECRET_MOST;

/// The text of a file that holds one secret, without white space around it.
pub(super) fn secret(path: &Path) -> Result<SecretString, String> {
    let text = bounded(path, SECRET_MOST)?;
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_control) {
        return Err(format!("{}: one line of text is expected", path.display()));
    }
    Ok(text.to_owned().into())
}

/// The text of a file that is not larger than this.
pub(super) fn bounded(path: &Path, most: u64) -> Result<String, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > most {
        return Err(failed(&"the file is too large"));
    }
    Ok(text)
}

/// An address given as it is, or by file.
pub(super) fn url(url: &Option<String>, file: &Option<PathBuf>) -> Result<Url, String> {
    use secrecy::ExposeSecret;
    let (text, source) = match (url, file) {
        (Some(url), _) => (url.clone(), "the address".to_owned()),
        (None, Some(file)) => (secret(file)?.expose_secret().to_owned(), file.display().to_string()),
        (None, None) => return Err("no address is given".to_owned()),
    };
    let url = Url::parse(&text).map_err(|error| format!("{source} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{source}: https://HOST/… or http://HOST/… is expected"));
    }
    Ok(url)
}

/// What of an address can be shown: who is asked, not what makes the address a secret.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_hides() {
        let url = url(&Some("https://user:pass@hooks.example:8443/services/T0/B0/secret?key=x".to_owned()), &None).unwrap();
        assert_eq!(shown(&url), "https://hooks.example:8443");
        for bad in ["secret token", "ftp://secret", "https://"] {
            let error = super::url(&Some(bad.to_owned()), &None).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_secret_is_one_line() {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, " https://h.example/x\n").unwrap();
        assert_eq!(url(&None, &Some(file.clone())).unwrap().path(), "/x");
        for bad in ["", "\n", "a\nb", &"x".repeat(SECRET_MOST as usize + 1)] {
            std::fs::write(&file, bad).unwrap();
            let error = secret(&file).unwrap_err();
            assert!(error.contains("url:") && error.len() < 200, "{error}");
        }
        assert!(secret(&dir.path().join("none")).is_err());
    }
}
