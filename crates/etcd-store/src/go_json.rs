//! JSON text in the form Go's `encoding/json` writes, which etcd stores and hashes.

use serde::Serialize;

/// `value` as Go's `json.Marshal` prints it: no white space, and the characters that could close an HTML script escaped.
pub(crate) fn marshal<T: Serialize>(value: &T) -> String {
    #[expect(clippy::expect_used, reason = "the crate's own types: strings, numbers, lists; no map with other keys, no failing Serialize")]
    let text = serde_json::to_string(value).expect("plain data is JSON");
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            // Outside of strings JSON has none of these characters, so no context is needed.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn html_is_escaped_as_go_does() {
        assert_eq!(marshal(&"a<b>&\u{2028}\u{e4}\"\n"), "\"a\\u003cb\\u003e\\u0026\\u2028\u{e4}\\\"\\n\"");
    }
}
