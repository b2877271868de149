//! The generated messages and services of `proto/service.proto` and, in [`csi`], `proto/csi.proto`.
//!
//! `Debug` of the messages that carry secrets is written here by hand: it shows sizes only.

#![allow(missing_docs, clippy::all, unreachable_pub)]

use std::fmt;

tonic::include_proto!("v1alpha1");

/// The driver's CSI service, which kubelet calls.
pub mod csi {
    tonic::include_proto!("csi.v1");
}

impl fmt::Debug for MountRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountRequest")
            .field(
                "attributes",
                &format_args!("<{} bytes>", self.attributes.len()),
            )
            .field("secrets", &format_args!("<{} bytes>", self.secrets.len()))
            .field("target_path", &self.target_path)
            .field("permission", &self.permission)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MountResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountResponse")
            .field("object_version", &self.object_version)
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.path)
            .field("mode", &format_args!("{:04o}", self.mode))
            .field("contents", &format_args!("<{} bytes>", self.contents.len()))
            .finish()
    }
}

impl fmt::Debug for csi::NodePublishVolumeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodePublishVolumeRequest")
            .field("volume_id", &self.volume_id)
            .field("target_path", &self.target_path)
            .finish_non_exhaustive()
    }
}
