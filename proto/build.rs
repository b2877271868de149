//! Generates the gRPC code of the `.proto` files with protox, so that no `protoc` is needed, and packs
//! the program's relocations where the C library can read that.

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
        // Contents are shared with the store instead of copied for every pod.
        .bytes("v1alpha1.File.contents")
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    println!("cargo:rerun-if-changed=proto/build.rs");
    if packs_relocations() {
        // 0.8 MB of tables, all of them read at the start, become 20 kB.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// glibc reads them from 2.36 on (Debian 12); what it runs on is what it was built on, or newer.
fn packs_relocations() -> bool {
    let var = |name| std::env::var(name).unwrap_or_default();
    if var("HOST") != var("TARGET") || var("CARGO_CFG_TARGET_ENV") != "gnu" {
        return false;
    }
    let Ok(told) = Command::new("ldd").arg("--version").output() else {
        return false;
    };
    let told = String::from_utf8_lossy(&told.stdout);
    let version = told.lines().next().and_then(|line| line.rsplit(' ').next());
    let Some((major, minor)) = version.and_then(|version| version.split_once('.')) else {
        return false;
    };
    let number = |text: &str| text.parse().unwrap_or(0);
    (number(major), number(minor)) >= (2_u32, 36_u32)
}
