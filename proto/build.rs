//! Generates the gRPC code of `service.proto` with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["proto/service.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // Both carry secrets or tokens: `src/proto.rs` writes their `Debug` by hand.
        .skip_debug([
            "v1alpha1.MountRequest",
            "v1alpha1.MountResponse",
            "v1alpha1.File",
        ])
        // Contents are shared with the store instead of copied for every pod.
        .bytes("v1alpha1.File.contents")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto/service.proto");
    println!("cargo:rerun-if-changed=proto/build.rs");
    Ok(())
}
