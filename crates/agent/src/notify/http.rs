//! One POST over HTTP, to one host and no other.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Certificate, Client, Response, StatusCode};
use url::Url;
use vault::store::authorities;

use super::{Trouble, address, chain, cut};
use crate::limits::{ANSWER_MOST, ANSWER_SHOWN, CERTIFICATES_MOST, DIAL_WITHIN, REDIRECTS_MOST, TELL_WITHIN};

/// Parts of an address shorter than this are no secrets; they are not looked for in answers.
const SECRET_LEAST: usize = 6;

/// A request, ready to be sent more than once.
#[derive(Clone)]
pub(super) struct Post {
    url: Url,
    headers: HeaderMap,
    body: Vec<u8>,
    ca_file: Option<PathBuf>,
    timeout: Duration,
}

impl Post {
    pub(super) fn new(url: Url, content_type: &'static str, body: Vec<u8>, ca_file: Option<PathBuf>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { url, headers, body, ca_file, timeout: TELL_WITHIN }
    }

    /// Adds a header. Its value must be visible ASCII, and is never shown.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Self, String> {
        let mut value =
            HeaderValue::from_str(value).map_err(|_| format!("the value of the header {name} has signs that no header can have"))?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    #[cfg(test)]
    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    #[cfg(test)]
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Scheme and host.
    pub(super) fn place(&self) -> String {
        address::shown(&self.url)
    }

    pub(super) async fn send(&self) -> Result<String, Trouble> {
        let request = self.client()?.post(self.url.clone()).headers(self.headers.clone()).body(self.body.clone());
        let response = request.send().await.map_err(|error| self.trouble(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(status.to_string());
        }
        if status.is_redirection() {
            return Err(Trouble::lasting(format!(
                "it answers {status} and points to {}; name that address if it is the right one",
                target(&response)
            )));
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT;
        let said = self.said(response).await;
        let why = if said.is_empty() { format!("it answers {status}") } else { format!("it answers {status}: {said}") };
        Err(Trouble { why, passing, after: after.map(|after| after.min(TELL_WITHIN)) })
    }

    fn client(&self) -> Result<Client, Trouble> {
        // reqwest is built without a provider of its own. If main has installed one already, that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .timeout(self.timeout)
            .connect_timeout(DIAL_WITHIN)
            .referer(false)
            .redirect(Policy::custom(within_one_host));
        let built_in = authorities::built_in();
        let mut certificates: Vec<Certificate> = built_in.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
        if let Some(file) = &self.ca_file {
            let text = address::bounded(file, CERTIFICATES_MOST).map_err(Trouble::lasting)?;
            let named = Certificate::from_pem_bundle(text.as_bytes())
                .map_err(|_| Trouble::lasting(format!("{}: no certificates", file.display())))?;
            certificates.extend(named);
        }
        builder = if built_in.is_empty() { builder.tls_certs_merge(certificates) } else { builder.tls_certs_only(certificates) };
        builder.build().map_err(|error| Trouble::lasting(format!("no request can be made: {}", chain(&error.without_url()))))
    }

    fn trouble(&self, error: reqwest::Error) -> Trouble {
        let passing = !error.is_builder() && !error.is_redirect();
        let text = if error.is_timeout() && !error.is_connect() {
            format!("no answer within {} s", self.timeout.as_secs_f32())
        } else {
            self.without_secrets(&chain(&error.without_url()))
        };
        Trouble { why: text, passing, after: None }
    }

    /// The beginning of what it says, unless it repeats what nobody is to read.
    async fn said(&self, mut response: Response) -> String {
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() >= ANSWER_MOST {
                break;
            }
        }
        bytes.truncate(ANSWER_MOST);
        let text = self.without_secrets(&String::from_utf8_lossy(&bytes));
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        cut(line.trim(), ANSWER_SHOWN)
    }

    fn without_secrets(&self, text: &str) -> String {
        let mut secrets: Vec<String> = self.url.path_segments().into_iter().flatten().map(str::to_owned).collect();
        secrets.extend(self.url.query_pairs().map(|(_, value)| value.into_owned()));
        secrets.extend(self.url.password().map(str::to_owned));
        let values = self.headers.values().filter(|value| value.is_sensitive()).filter_map(|value| value.to_str().ok());
        secrets.extend(values.flat_map(str::split_whitespace).map(str::to_owned));
        secrets.retain(|secret| secret.len() >= SECRET_LEAST);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

/// Follows only where the same host is asked the same thing again. Any other redirection would lose the message, or carry it elsewhere.
fn within_one_host(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let keeps_body = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let first = attempt.previous().first();
    let same_host = first.is_some_and(|first| first.origin() == attempt.url().origin());
    if keeps_body && same_host && attempt.previous().len() <= REDIRECTS_MOST { attempt.follow() } else { attempt.stop() }
}

fn target(response: &Response) -> String {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| response.url().join(location).ok());
    target.as_ref().map_or_else(|| "nowhere".to_owned(), address::shown)
}
