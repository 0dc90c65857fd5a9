//! Why a volume cannot be mounted.

use std::io;

/// Why the job's volumes cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("only root can mount volumes, and the agent of this guest is not root")]
    NotRoot,
    #[error(
        "the kernel of this guest has no 9p driver: it needs the modules 9p and 9pnet_virtio \
         (CONFIG_9P_FS, CONFIG_NET_9P_VIRTIO)"
    )]
    NoDriver,
    #[error("the kernel of this guest has no overlay file system: it needs the module overlay")]
    NoOverlay,
    #[error("cannot make the directory {path}")]
    Directory { path: String, source: io::Error },
    #[error("cannot mount it at {path}")]
    Mount { path: String, source: io::Error },
    #[error("cannot prepare a layer in memory")]
    Layer(#[source] io::Error),
    #[error("cannot change the root")]
    Root(#[source] io::Error),
}
