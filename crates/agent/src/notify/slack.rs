//! Slack's incoming webhooks, and what understands them: Mattermost, Rocket.Chat, Discord under `/slack`.

use engine::config::Address;
use serde_json::json;

use super::{Message, address, cut, http::Post};
use crate::limits::SLACK_TEXT;

pub(super) fn post(slack: &Address, message: &Message) -> Result<Post, String> {
    let url = address::url(&slack.url, &slack.url_file)?;
    let text = cut(&format!("*{}*\n{}\n_{}_", escaped(&message.subject()), escaped(&message.text), escaped(&message.host)), SLACK_TEXT);
    Ok(Post::new(url, "application/json", json!({"text": text}).to_string().into_bytes(), slack.ca_file.clone()))
}

/// The three signs that Slack gives a meaning: links and mentions of everybody are made of them.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn nobody_is_mentioned_by_accident() {
        let slack = Address { url: Some("https://hooks.example/x".to_owned()), ..Address::default() };
        let message = Message { text: format!("<!channel> & {}", "x".repeat(10_000)), ..message() };
        let post = post(&slack, &message).unwrap();
        let body: serde_json::Value = serde_json::from_slice(post.body()).unwrap();
        let text = body["text"].as_str().unwrap();
        assert!(text.contains("&lt;!channel&gt; &amp;") && text.len() <= SLACK_TEXT && text.ends_with('…'), "{text}");
    }
}
