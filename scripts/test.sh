#!/bin/sh
# Runs all tests. `make setup` installs what a machine needs; this installs what only tests need.
set -eu

sh scripts/test-packages.sh

# Before the tests, because it takes longer than the timeout of a test.
sh scripts/cloud-image.sh > /dev/null

if command -v cargo-nextest > /dev/null; then
    cargo nextest run --workspace --test-threads $(($(nproc) + 1))
else
    # Few threads: many concurrent emulated machines are too slow for their timeouts.
    cargo test --workspace --all-targets -- --test-threads 2
fi
cargo test --workspace --doc
