//! Directories of the host that the guest mounts.

use serde::{Deserialize, Serialize};

/// A directory of the host, and where the guest mounts it.
///
/// ```
/// use metaservice_protocol::{Volume, VolumeMode};
///
/// let json = r#"{"tag":"metaservice0","path":"/src","mode":"ro"}"#;
/// let volume: Volume = serde_json::from_str(json).unwrap();
/// assert_eq!(volume.mode, VolumeMode::ReadOnly);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// The mount tag of the 9p device.
    pub tag: String,
    /// The absolute path in the guest. `/` is the root of the command, and has the mode
    /// [`Overlay`](VolumeMode::Overlay).
    pub path: String,
    /// What the guest may write.
    pub mode: VolumeMode,
}

/// What a guest may write to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum VolumeMode {
    /// Nothing.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Everything, to the directory of the host.
    #[serde(rename = "rw")]
    ReadWrite,
    /// Everything, to a layer in the guest's memory.
    #[serde(rename = "overlay")]
    Overlay,
}

impl VolumeMode {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
            Self::Overlay => "overlay",
        }
    }
}
