//! A command that gets the message as JSON on its standard input.

use std::time::Duration;

use engine::config::{Exec, duration};

use super::{Message, Trouble};
use crate::child::{self, Call};
use crate::limits::EXEC_WITHIN;

pub(super) struct Input {
    command: Vec<String>,
    environment: Vec<(String, String)>,
    json: Vec<u8>,
    timeout: Duration,
}

pub(super) fn input(exec: &Exec, message: &Message) -> Input {
    let timeout = exec.timeout.as_deref().and_then(|text| duration(text).ok()).unwrap_or(EXEC_WITHIN);
    let environment = [("LIFEBOAT_EVENT", message.event.word()), ("LIFEBOAT_CLUSTER", &message.cluster)];
    Input {
        command: exec.command.clone(),
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        json: format!("{}\n", message.json()).into_bytes(),
        timeout,
    }
}

impl Input {
    /// The program: its arguments may hold a secret.
    pub(super) fn place(&self) -> String {
        self.command.first().cloned().unwrap_or_default()
    }

    /// Only one try: what a command did before it failed is not known.
    pub(super) async fn send(&self) -> Result<String, Trouble> {
        let call = Call { command: &self.command, environment: self.environment.clone(), input: self.json.clone(), timeout: self.timeout };
        let ended = child::run(call).await;
        if ended.end.is_success() { Ok("exit status 0".to_owned()) } else { Err(Trouble::lasting(ended.told())) }
    }
}
