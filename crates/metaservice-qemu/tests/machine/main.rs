//! Real machines under QEMU. They need what `metaservice doctor --install` installs.

#![allow(clippy::unwrap_used)]

mod boundary;
mod devices;
mod guest;
mod life;
