//! Why a connection failed, carried past the layers that would turn it into "broken pipe".

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::ErrorKind;

/// A failed attempt to connect, as the error type of the dialler inside the gRPC library.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectFault(pub(crate) ErrorKind);

/// The last typed failure a client's connections have seen after they were dialled; shared with their byte streams.
///
/// A fault stays until a connection proves itself with its first HTTP/2 bytes, so that a call that fails while the
/// channel is already dialling anew still finds the reason.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate(Arc<Mutex<Option<ErrorKind>>>);

impl Fate {
    pub(crate) fn fault(&self) -> Option<ErrorKind> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn failed(&self, kind: ErrorKind) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
    }

    pub(crate) fn proven(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
