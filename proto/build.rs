//! Generates the gRPC code from the `.proto` files with protox, which needs no `protoc`, and enables packed
//! relocations if the C library supports them.

use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["service", "csi", "registration"].map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(&files, ["proto"])?;
    tonic_prost_build::configure()
        // Both carry secrets or tokens: `src/proto.rs` writes their `Debug` by hand.
        .skip_debug([
            "v1alpha1.MountRequest",
            "v1alpha1.MountResponse",
            "v1alpha1.File",
            "csi.v1.NodePublishVolumeRequest",
        ])
        // Contents are shared with the cache instead of copied for every pod.
        .bytes("v1alpha1.File.contents")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=proto/build.rs");
    if packs_relocations() {
        // Shrinks 0.8 MB of relocation tables, all of which are read at startup, to 20 kB.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// Whether glibc supports packed relocations, as it does since 2.36 (Debian 12). The program runs on the
/// glibc that it was built with, or on a newer one.
fn packs_relocations() -> bool {
    let var = |name| std::env::var(name).unwrap_or_default();
    if var("HOST") != var("TARGET") || var("CARGO_CFG_TARGET_ENV") != "gnu" {
        return false;
    }
    let Ok(output) = Command::new("ldd").arg("--version").output() else {
        return false;
    };
    let output = String::from_utf8_lossy(&output.stdout);
    let version = output
        .lines()
        .next()
        .and_then(|line| line.rsplit(' ').next());
    let Some((major, minor)) = version.and_then(|version| version.split_once('.')) else {
        return false;
    };
    let number = |text: &str| text.parse().unwrap_or(0);
    (number(major), number(minor)) >= (2_u32, 36_u32)
}
