//! Turns `proto/etcd.proto` into message types, without protoc: protox parses, tonic-prost-build writes.
//!
//! Only messages are generated. Calls go through one function of ours (`client::call`), so that tokens, deadlines, size
//! limits and error typing are in one place and cannot be forgotten for a single method.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/etcd.proto");
    let files = protox::compile(["etcd.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        // Keys, values and snapshot blobs stay slices of the receive buffer instead of being copied out of it.
        .bytes(".")
        // A token or a password must not reach a log through a derived Debug.
        .skip_debug([".etcdserverpb.AuthenticateRequest", ".etcdserverpb.AuthenticateResponse"])
        .skip_debug([".etcdserverpb.AuthUserAddRequest"])
        .compile_fds(files)?;
    Ok(())
}
