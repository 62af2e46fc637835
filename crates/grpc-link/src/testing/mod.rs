//! The server's side of gRPC by hand: HTTP/2 streams, framing, protobuf fields. Doubles are built on it.
//!
//! It shares no generated type and no gRPC library with the clients that doubles test, so that a wrong field number cannot
//! cancel itself out.

mod serve;
mod sink;
mod wire;

pub use self::serve::{GOAWAY_TOO_MANY_PINGS, Messages, serve};
pub use self::sink::{Failure, Gone, Order, Sink};
pub use self::wire::{Encoder, Fields, frame};
