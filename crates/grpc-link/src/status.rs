//! Telling statuses that this side made from those a server made.
//!
//! A status made by a server has no source; most of those made on this side (by hyper, by our dialler) have one, the rest
//! are known by the gRPC library's texts.

use std::error::Error as StdError;

use tonic::Status;

use crate::fault::{ConnectFault, Fate, LinkFault};

/// Longest server text kept in an error, in bytes; the rest is cut, because it comes from outside.
pub const TEXT_MAX: usize = 1024;

/// Texts of the gRPC library for statuses it makes itself without naming a source.
mod library {
    pub(super) const NO_FINAL_STATUS: &str = "protocol error: missing grpc-status trailer";
    pub(super) const CUT_MESSAGE: &str = "Unexpected EOF decoding stream";
    pub(super) const TOO_LARGE: &str = "Error, decoded message length too large";
    pub(super) const NOT_PROTOBUF: &str = "failed to decode Protobuf message";
    pub(super) const PROTOCOL: &str = "protocol error: ";
}

/// Why this side, not the server, ended a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalCause {
    /// The connection failed.
    Link(LinkFault),
    /// The time given to the call ran out.
    TimedOut,
    /// An answer was larger than allowed.
    TooLarge(String),
    /// An answer could not be understood.
    Garbled(String),
}

/// Cuts a text from outside to [`TEXT_MAX`], on a character boundary, and makes control characters visible.
#[must_use]
pub fn tame(text: &str) -> String {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut tamed = String::with_capacity(end);
    for c in text.get(..end).unwrap_or_default().chars() {
        if c.is_control() {
            tamed.extend(c.escape_default());
        } else {
            tamed.push(c);
        }
    }
    tamed
}

/// Why this side made the status; `None` when the server did. `fate` is what the connection itself has seen.
#[must_use]
pub fn local_cause(status: &Status, fate: &Fate) -> Option<LocalCause> {
    match status.source() {
        Some(source) => Some(by_source(source, status, fate)),
        None => by_library_text(status.message()),
    }
}

fn by_source(source: &(dyn StdError + 'static), status: &Status, fate: &Fate) -> LocalCause {
    let mut innermost = source;
    let mut link = Some(source);
    while let Some(error) = link {
        if let Some(fault) = error.downcast_ref::<ConnectFault>() {
            return LocalCause::Link(fault.0.clone());
        }
        if error.downcast_ref::<tonic::TimeoutExpired>().is_some() {
            return LocalCause::TimedOut;
        }
        innermost = error;
        link = error.source();
    }
    // hyper reports a connection that died as "broken pipe" or "cancelled"; the reason was seen by the byte stream below.
    if let Some(fault) = fate.fault() {
        return LocalCause::Link(fault);
    }
    let outer = status.message();
    let inner = innermost.to_string();
    let text = if outer.contains(&inner) || inner.is_empty() { tame(outer) } else { tame(&format!("{outer}: {inner}")) };
    LocalCause::Link(LinkFault::ConnectionLost(text))
}

fn by_library_text(text: &str) -> Option<LocalCause> {
    let lost = |fact: &str| LocalCause::Link(LinkFault::ConnectionLost(fact.to_owned()));
    let cause = if text.starts_with(library::NO_FINAL_STATUS) {
        lost("the stream ended without a final status")
    } else if text.starts_with(library::CUT_MESSAGE) {
        lost("the stream ended within a message")
    } else if text.starts_with(library::TOO_LARGE) {
        LocalCause::TooLarge(tame(text))
    } else if text.starts_with(library::NOT_PROTOBUF) || text.starts_with(library::PROTOCOL) {
        LocalCause::Garbled(tame(text))
    } else {
        return None;
    };
    Some(cause)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn text_from_outside_is_cut_and_cannot_move_the_cursor() {
        let long = "ä".repeat(TEXT_MAX);
        assert_eq!(tame(&long).len(), TEXT_MAX);
        assert_eq!(tame("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn what_a_server_says_is_not_taken_for_our_own() {
        let told = Status::unavailable("etcdserver: no leader");
        assert_eq!(local_cause(&told, &Fate::default()), None);
        let cut = Status::internal("Unexpected EOF decoding stream.");
        assert!(matches!(local_cause(&cut, &Fate::default()), Some(LocalCause::Link(LinkFault::ConnectionLost(_)))));
    }
}
