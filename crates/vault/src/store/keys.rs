//! What a key may look like; checked before any store is touched, and again on what a store lists.

use super::StoreError;
use super::limits::{MAX_KEY, MAX_KEY_PART, MAX_KEY_PARTS};

/// Whether this is one allowed part of a key: `[A-Za-z0-9][A-Za-z0-9._-]*` without `..`.
pub(super) fn is_part(part: &str) -> bool {
    part.len() <= MAX_KEY_PART
        && part.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !part.contains("..")
}

/// Whether this is an allowed key.
pub(super) fn is_key(key: &str) -> bool {
    key.len() <= MAX_KEY && key.split('/').count() <= MAX_KEY_PARTS && key.split('/').all(is_part)
}

/// Refuses what is no key.
pub(super) fn check(key: &str) -> Result<(), StoreError> {
    if is_key(key) { Ok(()) } else { Err(refused(key, "not an allowed key")) }
}

/// Refuses what is no prefix: empty, or whole parts with a slash at the end. Returns it without that slash.
pub(super) fn check_prefix(prefix: &str) -> Result<&str, StoreError> {
    match prefix.strip_suffix('/') {
        None if prefix.is_empty() => Ok(""),
        Some(parts) if is_key(parts) => Ok(parts),
        _ => Err(refused(prefix, "not an allowed prefix")),
    }
}

fn refused(key: &str, detail: &str) -> StoreError {
    // The text may come from outside; only its beginning is shown.
    StoreError::Corrupt { key: key.chars().take(MAX_KEY_PART).collect(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_match_the_grammar_exactly() {
        for good in ["a", "lifeboat.json", "c/snapshots/20261121T020004Z-7qk2m9/db.zst.age", "A-b_c.d/0"] {
            assert!(is_key(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "a..b", ".hidden", "a/.tmp-1", "-a", "a b", "a\0", "ä", "a%2fb", "a\\b", "a\nb"]
        {
            assert!(!is_key(bad), "{bad:?}");
            assert!(check(bad).is_err());
        }
        assert!(!is_key(&"a".repeat(MAX_KEY_PART + 1)));
        assert!(!is_key(&["a"; MAX_KEY_PARTS + 1].join("/")));
    }

    #[test]
    fn prefixes_end_in_a_slash_or_are_empty() {
        assert_eq!(check_prefix("").ok(), Some(""));
        assert_eq!(check_prefix("a/b/").ok(), Some("a/b"));
        for bad in ["a", "/", "a//", "../", "/a/"] {
            assert!(check_prefix(bad).is_err(), "{bad}");
        }
    }
}
