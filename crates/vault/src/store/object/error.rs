//! Says in the store's terms what a cloud answered.
//!
//! `object_store` keeps the status and the body of an answer only in the text of its error, so the error's code is read from that text: the
//! XML element `Code` that the APIs of S3, Google Cloud Storage and Azure Blob Storage all have in their error responses.

use std::error::Error as _;

use object_store::Error;
use object_store::client::HttpError;

use super::super::StoreError;

/// How much of a store's own words is passed on, in characters.
const MAX_DETAIL: usize = 300;

/// What one kind of store calls things.
pub(in super::super) struct Words {
    /// What a code of an error response means; `None`: its HTTP status decides.
    pub(in super::super) meaning: fn(&str) -> Option<Meaning>,
    /// Where credentials were looked for, for the message that there are none.
    pub(in super::super) no_credentials: &'static str,
    /// What only an address of the machine's own metadata service holds: the last way to credentials.
    pub(in super::super) metadata: &'static [&'static str],
}

/// What a code of an error response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Meaning {
    /// The bucket or container is missing.
    NoRoot,
    /// The object is missing.
    NotFound,
    /// A create-only write found something.
    Exists,
    /// A condition is not met: something is there, or another version than expected.
    Precondition,
    /// The store's contract is broken.
    Corrupt,
    /// The caller may not; with words to add.
    Denied(&'static str),
    /// No room.
    Full,
    /// Worth another try.
    Unreachable,
    /// The bucket is elsewhere.
    WrongRegion,
    /// None of these.
    Other,
}

/// Maps an error of an operation on `key`; `root` is the repository as the user named it.
pub(in super::super) fn map(words: &Words, key: &str, root: &str, error: Error) -> StoreError {
    let text = chain(&error);
    let key = if key.is_empty() { root } else { key }.to_owned();
    let code = element(&text, "Code").unwrap_or_default();
    let detail = || said(code, &text);
    match (words.meaning)(code) {
        None => by_kind(words, key, &text, &error),
        Some(Meaning::NoRoot) => StoreError::NoRoot { root: root.to_owned() },
        Some(Meaning::NotFound) => StoreError::NotFound { key },
        Some(Meaning::Exists) => StoreError::AlreadyExists { key },
        Some(Meaning::Precondition) if matches!(error, Error::Precondition { .. }) => StoreError::Changed { key },
        Some(Meaning::Precondition) => StoreError::AlreadyExists { key },
        Some(Meaning::Corrupt) => StoreError::Corrupt { key, detail: detail() },
        Some(Meaning::Denied(more)) => StoreError::Denied { key, detail: format!("{}{more}", detail()) },
        Some(Meaning::Full) => StoreError::Full { key },
        Some(Meaning::Unreachable) => StoreError::Unreachable { key, detail: detail() },
        Some(Meaning::WrongRegion) => StoreError::Other { key, detail: wrong_region(code, &text) },
        Some(Meaning::Other) => StoreError::Other { key, detail: detail() },
    }
}

/// Without a code that says it: by the kind of error, then by what ended the request.
fn by_kind(words: &Words, key: String, text: &str, error: &Error) -> StoreError {
    let detail = element(text, "Code").map_or_else(|| cause(error), |code| said(code, text));
    match error {
        Error::NotFound { .. } => StoreError::NotFound { key },
        Error::AlreadyExists { .. } => StoreError::AlreadyExists { key },
        Error::Precondition { .. } | Error::NotModified { .. } => StoreError::Changed { key },
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => StoreError::Denied { key, detail },
        _ if words.metadata.iter().any(|sign| text.contains(sign)) => {
            let sources = words.no_credentials;
            StoreError::Denied { key, detail: format!("no credentials were found: {sources} ({detail})") }
        }
        _ if text.contains("Received redirect without LOCATION") => StoreError::Other { key, detail: wrong_region("redirect", text) },
        _ if is_transport(error) || is_server_error(text) => StoreError::Unreachable { key, detail },
        // The service that gives tokens for credentials has answered, and not with one.
        _ if text.contains(TOKEN_REQUEST) => StoreError::Denied { key, detail: refused_token(text).unwrap_or(detail) },
        _ => StoreError::Other { key, detail },
    }
}

/// How `object_store` names the request for a token.
const TOKEN_REQUEST: &str = "Error performing token request";

/// RFC 6749, section 5.2: `error` and `error_description` of a refused token, a JSON object.
fn refused_token(text: &str) -> Option<String> {
    let json = &text[text.find('{')?..];
    let answer = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>().next()?.ok()?;
    let word = |name: &str| answer.get(name).and_then(serde_json::Value::as_str);
    let words: Vec<_> = [word("error"), word("error_description")].into_iter().flatten().map(clean).collect();
    (!words.is_empty()).then(|| format!("the credentials were refused: {}", words.join(": ")))
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

/// What stands before the status in the text of an error.
pub(in super::super) const STATUS: &str = "non-2xx status code: ";

fn is_server_error(text: &str) -> bool {
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
        // Azure adds lines of its own: the number of the request and the time.
        Some(message) => format!("{}: {}", clean(code), clean(message.split("\nRequestId:").next().unwrap_or(message))),
        None => clean(code),
    }
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let rest = &text[text.find(&format!("<{name}>"))? + name.len() + 2..];
    Some(&rest[..rest.find(&format!("</{name}>"))?])
}

/// Makes a store's words fit for a terminal, and takes out what would let their reader in: the signature of a SAS stands in its URL.
fn clean(text: &str) -> String {
    let one_line = text.split_whitespace().map(unsigned).collect::<Vec<_>>().join(" ");
    one_line.chars().filter(|char| !char.is_control()).take(MAX_DETAIL).collect()
}

fn unsigned(word: &str) -> String {
    let Some((before, signature)) = word.split_once("sig=") else { return word.to_owned() };
    let after = signature.find('&').map_or("", |end| &signature[end..]);
    format!("{before}sig=…{}", unsigned(after))
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;

    const NONE: Words = Words { meaning: |_| None, no_credentials: "nowhere", metadata: &["169.254."] };

    pub(in super::super::super) fn generic(body: &str) -> Error {
        Error::Generic { store: "S3", source: format!("Server returned non-2xx status code: {body}").into() }
    }

    /// What an operation on `k` in `s3://b` says.
    pub(in super::super::super) fn map_with(words: &Words, error: Error) -> StoreError {
        map(words, "k", "s3://b", error)
    }

    fn not_found(body: &str) -> Error {
        Error::NotFound { path: "p".to_owned(), source: body.to_owned().into() }
    }

    #[test]
    fn without_a_code_the_kind_decides() {
        assert!(matches!(map(&NONE, "", "s3://b", not_found("")), StoreError::NotFound { key } if key == "s3://b"));
        assert!(matches!(map_with(&NONE, generic("503 Service Unavailable: ")), StoreError::Unreachable { .. }));
        assert!(matches!(map_with(&NONE, generic("418 teapot")), StoreError::Other { .. }));
        assert!(matches!(map_with(&NONE, generic("connect http://169.254.169.254/latest")), StoreError::Denied { .. }));
    }

    #[test]
    fn a_refused_token_is_told_in_the_services_words() {
        let text = "Error performing token request: Server returned non-2xx status code: 401 Unauthorized: \
                    {\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret provided.\"}";
        let error = map_with(&NONE, Error::Generic { store: "MicrosoftAzure", source: text.into() });
        let StoreError::Denied { detail, .. } = error else { panic!("{error:?}") };
        assert_eq!(detail, "the credentials were refused: invalid_client: AADSTS7000215: Invalid client secret provided.");
    }

    #[test]
    fn the_signature_of_a_sas_is_never_passed_on() {
        let text = "418 GET https://a.blob.example/c?sv=1&sig=hunter2%3D&se=2 and sig=hunter2";
        let StoreError::Other { detail, .. } = map_with(&NONE, generic(text)) else { panic!() };
        assert!(!detail.contains("hunter2") && detail.contains("sig=…&se=2"), "{detail}");
    }
}
