//! x
#[allow(missing_docs, unreachable_pub, missing_debug_implementations)]
mod pb { include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs")); }
