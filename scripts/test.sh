#!/bin/sh
# All tests. `make setup` has got what a machine needs; this gets what only tests need.
set -eu

sh scripts/test-packages.sh

# Beforehand, because it takes longer than a test may. Its output is for the tests.
sh scripts/cloud-image.sh > /dev/null

if command -v cargo-nextest > /dev/null; then
    cargo nextest run --workspace
else
    # One after the other: too many emulated machines at once are too slow for their deadlines.
    cargo test --workspace --all-targets -- --test-threads 2
fi
cargo test --workspace --doc
