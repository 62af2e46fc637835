//! Dead man's switches as healthchecks has them: they speak up when nobody pings.

use engine::config::{Address, Event};
use url::Url;

use super::{Message, address, cut, http::Post};
use crate::limits::PING_TEXT;

pub(super) fn post(ping: &Address, message: &Message) -> Result<Post, String> {
    let mut url = address::url(&ping.url, &ping.url_file)?;
    append(&mut url, signal(message));
    Ok(Post::new(url, "text/plain; charset=utf-8", cut(&message.text, PING_TEXT).into_bytes(), ping.ca_file.clone()))
}

/// What goes behind the address. A test is only logged: as a success it would hide a backup that is missed.
fn signal(message: &Message) -> Option<&'static str> {
    match message.event {
        Event::Started => Some("start"),
        Event::Test => Some("log"),
        _ if message.is_bad() => Some("fail"),
        _ => None,
    }
}

fn append(url: &mut Url, signal: Option<&str>) {
    if let (Some(signal), Ok(mut path)) = (signal, url.path_segments_mut()) {
        path.pop_if_empty().push(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn the_signal_goes_behind_the_path() {
        for (event, expected) in [
            (Event::Started, "https://h.example/uuid/start?create=1"),
            (Event::Succeeded, "https://h.example/uuid?create=1"),
            (Event::Warning, "https://h.example/uuid?create=1"),
            (Event::Failed, "https://h.example/uuid/fail?create=1"),
            (Event::Test, "https://h.example/uuid/log?create=1"),
        ] {
            let mut url = Url::parse("https://h.example/uuid?create=1").unwrap();
            append(&mut url, signal(&Message { event, ..message() }));
            assert_eq!(url.as_str(), expected);
        }
        let mut url = Url::parse("https://h.example/uuid/").unwrap();
        append(&mut url, Some("fail"));
        assert_eq!(url.as_str(), "https://h.example/uuid/fail");
    }
}
