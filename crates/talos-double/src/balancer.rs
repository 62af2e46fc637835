//! A load balancer as people put one before their control plane: it knows connections, and nothing of what is in them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::network::APID;
use crate::world::World;

/// Opens its port and hands connections on in the background.
pub(crate) async fn listen(world: &Arc<World>, ip: Ipv4Addr) {
    let listener = TcpListener::bind((ip, APID)).await.unwrap();
    let world = Arc::clone(world);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        let mut turn = 0;
        while let Ok((socket, _)) = listener.accept().await {
            // Its health check is perfect: what is down is never tried. Where nobody is up the connection is closed.
            if let Some(target) = next(&world, &mut turn) {
                connections.spawn(hand_on(socket, target));
            }
            while connections.try_join_next().is_some() {}
        }
    });
}

/// The control plane node whose turn it is.
fn next(world: &World, turn: &mut usize) -> Option<Ipv4Addr> {
    let up: Vec<Ipv4Addr> = world.control_planes().filter(|node| node.is_up()).map(|node| node.ip).collect();
    let target = up.get(*turn % up.len().max(1)).copied();
    *turn += 1;
    target
}

async fn hand_on(mut socket: TcpStream, target: Ipv4Addr) {
    if let Ok(mut behind) = TcpStream::connect((target, APID)).await {
        // Either side may go at any time.
        let _ended = copy_bidirectional(&mut socket, &mut behind).await;
    }
}
