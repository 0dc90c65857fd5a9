//! Real machines under QEMU. They need what `metaservice doctor --install` installs.

#![allow(clippy::unwrap_used)]

mod devices;
mod guest;
mod life;
