#!/bin/sh
# All tests. What the machine lacks for them was installed by `make setup`.
set -eu
if command -v cargo-nextest > /dev/null; then
    cargo nextest run --workspace
else
    cargo test --workspace --all-targets
fi
cargo test --workspace --doc
