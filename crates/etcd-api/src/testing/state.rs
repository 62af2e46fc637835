//! What the double knows while it runs.

use grpc_link::testing::Failure;

use super::script::{Behaviour, Script};

/// One call as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// etcd's name for it, like "Snapshot".
    pub name: String,
    /// The `token` it carried.
    pub token: Option<String>,
    /// The `grpc-timeout` it carried.
    pub timeout: Option<String>,
    /// Which connection it came over, counted from 1.
    pub connection: u64,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) behaviour: Behaviour,
    pub(super) script: Script,
    pub(super) calls: Vec<Call>,
    pub(super) connections: u64,
    pub(super) cancelled: u64,
    issued: u64,
    valid_from: u64,
}

const UNAUTHENTICATED: u32 = 16;
const INVALID_ARGUMENT: u32 = 3;

impl State {
    pub(super) fn new(behaviour: Behaviour, script: Script) -> Self {
        Self { behaviour, script, calls: Vec::new(), connections: 0, cancelled: 0, issued: 0, valid_from: 1 }
    }

    pub(super) fn issue_token(&mut self) -> String {
        self.issued += 1;
        format!("token.{}", self.issued)
    }

    pub(super) fn expire_tokens(&mut self) {
        self.valid_from = self.issued + 1;
    }

    /// Judges the token of a call, as etcd's interceptors do.
    pub(super) fn admit(&self, call: &Call) -> Result<(), Failure> {
        if let Some(failure) = self.script.fail.get(&call.name) {
            return Err(failure.clone());
        }
        if self.script.credentials.is_none() || call.name == "Authenticate" {
            return Ok(());
        }
        let Some(token) = &call.token else {
            return Err(Failure::new(INVALID_ARGUMENT, "etcdserver: user name is empty"));
        };
        let number = token.strip_prefix("token.").and_then(|number| number.parse::<u64>().ok());
        let valid = number.is_some_and(|number| (self.valid_from..=self.issued).contains(&number));
        if valid && !self.script.refuse_tokens {
            return Ok(());
        }
        Err(Failure::new(UNAUTHENTICATED, "etcdserver: invalid auth token"))
    }
}
