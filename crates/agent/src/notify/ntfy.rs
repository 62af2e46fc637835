//! ntfy: the text as the body, the rest in headers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use engine::config::{Event, Ntfy};
use secrecy::ExposeSecret;

use super::{Message, address, cut, http::Post};
use crate::limits::NTFY_TEXT;

pub(super) fn post(ntfy: &Ntfy, message: &Message) -> Result<Post, String> {
    let url = address::url(&ntfy.url, &ntfy.url_file)?;
    let (priority, tag) = look(message.event);
    let post = Post::new(url, "text/plain; charset=utf-8", cut(&message.text, NTFY_TEXT).into_bytes(), ntfy.ca_file.clone())
        .header("title", &ascii(&message.subject()))?
        .header("priority", priority)?
        .header("tags", &ascii(&format!("{tag},{}", message.cluster)))?;
    match &ntfy.token_file {
        Some(file) => post.header("authorization", &format!("Bearer {}", address::secret(file)?.expose_secret())),
        None => Ok(post),
    }
}

/// Priority and emoji.
fn look(event: Event) -> (&'static str, &'static str) {
    match event {
        Event::Failed | Event::Damaged | Event::NeverRan => ("high", "rotating_light"),
        Event::Stale | Event::DrillFailed | Event::Health | Event::StoreBehind => ("high", "warning"),
        Event::Warning => ("default", "warning"),
        Event::Recovered | Event::Succeeded => ("default", "white_check_mark"),
        Event::Started | Event::Test => ("low", "lifebuoy"),
    }
}

/// A header's value: as it is, or as RFC 2047 has it, which ntfy reads.
fn ascii(text: &str) -> String {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) { text.to_owned() } else { format!("=?UTF-8?B?{}?=", STANDARD.encode(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_beyond_ascii_are_encoded() {
        assert_eq!(ascii("backup failed"), "backup failed");
        assert_eq!(ascii("é"), "=?UTF-8?B?w6k=?=");
        assert!(Event::ALL.into_iter().all(|event| !look(event).0.is_empty()));
    }
}
