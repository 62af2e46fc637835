//! What is told, as a value.

use engine::config::Event;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::cut;
use crate::limits::TITLE_MOST;

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What there is to tell.
    pub event: Event,
    /// Whether it was told before, and has not changed.
    pub reminder: bool,
    /// Of which cluster.
    pub cluster: String,
    /// It in one line, the cluster's name in it.
    pub title: String,
    /// It in words, with what to do next.
    pub text: String,
    /// It for machines.
    pub facts: Map<String, Value>,
    /// When.
    pub at: Timestamp,
    /// Who tells it.
    pub host: String,
}

impl Message {
    /// The message as one JSON object, `lifeboat.message/1`.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema": "lifeboat.message/1",
            "event": self.event.word(),
            "reminder": self.reminder,
            "cluster": self.cluster,
            "title": self.title,
            "text": self.text,
            "facts": self.facts,
            "at": self.at.to_string(),
            "host": self.host,
        })
    }

    /// Whether somebody has to do something.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        matches!(
            self.event,
            Event::Failed | Event::Stale | Event::NeverRan | Event::Damaged | Event::DrillFailed | Event::Health | Event::StoreBehind
        )
    }

    /// The title in one line, cut where it is far too long.
    pub(super) fn subject(&self) -> String {
        let line: String = self.title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = if self.reminder { format!("still: {line}") } else { line };
        cut(&line, TITLE_MOST)
    }
}

/// The name of this host.
#[must_use]
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
