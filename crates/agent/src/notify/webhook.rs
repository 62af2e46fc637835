//! Any HTTP endpoint, with a body of the user's shape.

use engine::config::Webhook;
use secrecy::ExposeSecret;

use super::{Message, address, http::Post};

pub(super) fn post(webhook: &Webhook, message: &Message) -> Result<Post, String> {
    let url = address::url(&webhook.url, &webhook.url_file)?;
    let body = match &webhook.template {
        Some(template) => fill(template, message),
        None => message.json().to_string(),
    };
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok();
    let content_type = if is_json { "application/json" } else { "text/plain; charset=utf-8" };
    let post = Post::new(url, content_type, body.into_bytes(), webhook.ca_file.clone());
    match &webhook.authorization_file {
        Some(file) => post.header("authorization", address::secret(file)?.expose_secret()),
        None => Ok(post),
    }
}

/// The template with its placeholders filled in, in one pass: what is filled in is not looked at again.
fn fill(template: &str, message: &Message) -> String {
    let values = [
        ("{cluster}", inside(&message.cluster)),
        ("{event}", inside(message.event.word())),
        ("{title}", inside(&message.subject())),
        ("{text}", inside(&message.text)),
        ("{json}", message.json().to_string()),
    ];
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match values.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                out.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// A text as it stands between the quotes of a JSON string.
fn inside(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn a_template_is_filled_in_once_and_stays_json() {
        let mut message = message();
        message.text = "a \"quote\",\n{cluster} and a \\".to_owned();
        let filled = fill(r#"{"a":{"t":"{title}"},"text":"{cluster}/{event}: {text}","all":{json},"x":"{other}"}"#, &message);
        let value: serde_json::Value = serde_json::from_str(&filled).unwrap();
        assert_eq!(value["text"], "prod/failed: a \"quote\",\n{cluster} and a \\");
        assert_eq!((&value["all"], &value["x"]), (&message.json(), &serde_json::Value::from("{other}")));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_text_is_the_body_is_json(text in ".*", title in ".*") {
            let message = Message { text: text.clone(), title, ..message() };
            let filled = fill(r#"{"text":"{text}","title":"{title}"}"#, &message);
            let value: serde_json::Value = serde_json::from_str(&filled).unwrap();
            assert_eq!(value["text"], text);
        }
    }
}
