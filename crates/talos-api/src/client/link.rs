//! One endpoint and the connection to it, made when it is needed.

use std::sync::Arc;
use std::time::Duration;

use grpc_link::{ChannelOptions, Fate, Keepalive, LinkFault, TlsOptions};
use tokio::sync::Mutex;
use tonic::transport::Channel;

use crate::limits;
use crate::node::Endpoint;

/// An endpoint. The channel, once made, reconnects by itself.
pub(super) struct Link {
    endpoint: Endpoint,
    tls: Arc<TlsOptions>,
    options: ChannelOptions,
    fate: Fate,
    channel: Mutex<Option<Channel>>,
}

impl Link {
    pub(super) fn new(endpoint: Endpoint, tls: Arc<TlsOptions>, dial_timeout: Duration) -> Self {
        let options = ChannelOptions {
            dial_timeout,
            keepalive: Keepalive::Tcp { time: limits::TCP_KEEPALIVE_TIME, interval: limits::TCP_KEEPALIVE_INTERVAL },
            stream_window: limits::STREAM_WINDOW,
            connection_window: limits::CONNECTION_WINDOW,
            frame_size: limits::FRAME_SIZE,
        };
        Self { endpoint, tls, options, fate: Fate::default(), channel: Mutex::new(None) }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.fate
    }

    /// The channel; dialled now if there is none. Callers that come together share one attempt.
    pub(super) async fn channel(&self) -> Result<Channel, LinkFault> {
        let mut slot = self.channel.lock().await;
        if let Some(channel) = slot.as_ref() {
            return Ok(channel.clone());
        }
        let channel = grpc_link::connect(self.endpoint.address(), Some(&self.tls), &self.options, &self.fate).await?;
        *slot = Some(channel.clone());
        Ok(channel)
    }
}
