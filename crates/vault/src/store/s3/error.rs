//! Says in the store's terms what an S3 server answered.
//!
//! `object_store` keeps the status and the body of an answer only in the text of its error, so the error's code is read from that text: the
//! XML element `Code` of the S3 API's error response.

use std::error::Error as _;

use object_store::Error;
use object_store::client::HttpError;

use super::super::StoreError;

/// How much of a store's own words is passed on, in characters.
const MAX_DETAIL: usize = 300;

/// Maps an error of an operation on `key`; `root` is the repository as the user named it.
pub(super) fn map(key: &str, root: &str, error: Error) -> StoreError {
    let text = chain(&error);
    let shown = if key.is_empty() { root } else { key }.to_owned();
    let code = element(&text, "Code").unwrap_or_default();
    match code {
        "" => by_kind(shown, &text, &error),
        "NoSuchBucket" => StoreError::NoRoot { root: root.to_owned() },
        "NoSuchKey" => StoreError::NotFound { key: shown },
        "PreconditionFailed" if matches!(error, Error::Precondition { .. }) => StoreError::Changed { key: shown },
        "PreconditionFailed" => StoreError::AlreadyExists { key: shown },
        "InvalidRange" => StoreError::Corrupt { key: shown, detail: said(code, &text) },
        "RequestTimeTooSkewed" => {
            StoreError::Denied { key: shown, detail: format!("{}; is this machine's clock right?", said(code, &text)) }
        }
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidSecurity"
        | "NotSignedUp"
        | "UnauthorizedAccess" => StoreError::Denied { key: shown, detail: said(code, &text) },
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "EntityTooLarge" => {
            StoreError::Full { key: shown }
        }
        "SlowDown" | "ServiceUnavailable" | "InternalError" | "RequestTimeout" | "ThrottlingException" | "TooManyRequests" => {
            StoreError::Unreachable { key: shown, detail: said(code, &text) }
        }
        // Answered with 501, and yet the server is well: it does not do this.
        "NotImplemented" => StoreError::Other { key: shown, detail: said(code, &text) },
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "TemporaryRedirect" => {
            StoreError::Other { key: shown, detail: wrong_region(code, &text) }
        }
        _ => by_kind(shown, &text, &error),
    }
}

/// Without a code that says it: by the kind of error, then by what ended the request.
fn by_kind(key: String, text: &str, error: &Error) -> StoreError {
    let detail = element(text, "Code").map_or_else(|| cause(error), |code| said(code, text));
    match error {
        Error::NotFound { .. } => StoreError::NotFound { key },
        Error::AlreadyExists { .. } => StoreError::AlreadyExists { key },
        Error::Precondition { .. } | Error::NotModified { .. } => StoreError::Changed { key },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreError::Denied { key, detail },
        _ if no_credentials(text) => StoreError::Denied {
            key,
            detail: format!(
                "no credentials were found: neither in the environment (AWS_ACCESS_KEY_ID, …) nor a credentials file nor from this machine's role ({detail})"
            ),
        },
        _ if text.contains("Received redirect without LOCATION") => StoreError::Other { key, detail: wrong_region("redirect", text) },
        _ if is_transport(error) || is_server_error(text) => StoreError::Unreachable { key, detail },
        _ => StoreError::Other { key, detail },
    }
}

/// Asking the machine's own metadata service is the last way to credentials; when that fails, there are none.
fn no_credentials(text: &str) -> bool {
    text.contains("169.254.") || text.contains("/latest/api/token") || text.contains("security-credentials")
}

fn is_transport(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<HttpError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_server_error(text: &str) -> bool {
    const STATUS: &str = "non-2xx status code: ";
    let status = text.find(STATUS).map(|at| &text[at + STATUS.len()..]);
    status.is_some_and(|status| status.starts_with('5') || status.starts_with("429") || status.starts_with("408"))
}

fn wrong_region(code: &str, text: &str) -> String {
    match element(text, "Region").or_else(|| text.split("expecting '").nth(1).and_then(|rest| rest.split('\'').next())) {
        Some(region) => format!("{}; the bucket is in region {}", said(code, text), clean(region)),
        None => format!("{}; is the region or the endpoint wrong?", said(code, text)),
    }
}

/// The text of an error and all its causes.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push('\n');
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The words of the innermost cause.
fn cause(error: &Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(cause) = inner.source() {
        inner = cause;
    }
    clean(&inner.to_string())
}

fn said(code: &str, text: &str) -> String {
    match element(text, "Message") {
        Some(message) => format!("{}: {}", clean(code), clean(message)),
        None => clean(code),
    }
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = &text[text.find(&format!("<{name}>"))? + name.len() + 2..];
    Some(&rest[..rest.find(&format!("</{name}>"))?])
}

/// Makes a store's words fit for a terminal.
fn clean(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    one_line.chars().filter(|char| !char.is_control()).take(MAX_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(body: &str) -> Error {
        Error::Generic { store: "S3", source: format!("Server returned non-2xx status code: {body}").into() }
    }

    fn not_found(body: &str) -> Error {
        Error::NotFound { path: "p".to_owned(), source: body.to_owned().into() }
    }

    #[test]
    fn codes_decide() {
        let xml =
            |code: &str| format!("400: <Error><Code>{code}</Code><Message>words\u{1b}[1m</Message><Region>eu-west-9</Region></Error>");
        let of = |code: &str| map("k", "s3://b", generic(&xml(code)));
        assert!(matches!(of("NoSuchBucket"), StoreError::NoRoot { root } if root == "s3://b"));
        assert!(matches!(of("NoSuchKey"), StoreError::NotFound { key } if key == "k"));
        assert!(matches!(of("InvalidAccessKeyId"), StoreError::Denied { detail, .. } if detail == "InvalidAccessKeyId: words[1m"));
        assert!(matches!(of("SignatureDoesNotMatch"), StoreError::Denied { .. }));
        assert!(matches!(of("SlowDown"), StoreError::Unreachable { .. }));
        assert!(matches!(of("InvalidRange"), StoreError::Corrupt { .. }));
        let not_done = map("k", "r", generic("501 Not Implemented: <Error><Code>NotImplemented</Code><Message>no</Message></Error>"));
        assert!(matches!(not_done, StoreError::Other { detail, .. } if detail == "NotImplemented: no"));
        assert!(matches!(of("QuotaExceeded"), StoreError::Full { .. }));
        assert!(matches!(of("AuthorizationHeaderMalformed"), StoreError::Other { detail, .. } if detail.ends_with("region eu-west-9")));
        assert!(matches!(of("Unheard"), StoreError::Other { detail, .. } if detail.starts_with("Unheard: words")));
    }

    #[test]
    fn without_a_code_the_kind_decides() {
        assert!(matches!(map("", "s3://b", not_found("")), StoreError::NotFound { key } if key == "s3://b"));
        assert!(matches!(map("k", "r", not_found("<Code>NoSuchBucket</Code>")), StoreError::NoRoot { .. }));
        assert!(matches!(map("k", "r", generic("503 Service Unavailable: ")), StoreError::Unreachable { .. }));
        assert!(matches!(map("k", "r", generic("418 teapot")), StoreError::Other { .. }));
        assert!(matches!(map("k", "r", generic("connect http://169.254.169.254/latest")), StoreError::Denied { .. }));
    }
}
