//! Turns `proto/talos.proto` into message types, without protoc: protox parses, tonic-prost-build writes.
//!
//! Only messages are generated. Calls go through one function of ours (`client::call`), so that the node, deadlines, size
//! limits and error typing are in one place and cannot be forgotten for a single method.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/talos.proto");
    let files = protox::compile(["talos.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        // Pieces of snapshots, files and machine configs stay slices of the receive buffer instead of being copied out of it.
        .bytes(".")
        // A machine config holds every secret of a cluster and must not reach a log through a derived Debug.
        .skip_debug([".talos.Data", ".talos.ResourceSpec", ".talos.Resource", ".talos.GetResponse", ".talos.ListResponse"])
        .skip_debug([".talos.MachineConfigSpec"])
        .compile_fds(files)?;
    Ok(())
}
