#!/bin/sh
# Builds the tool and the bench together, because they share dependencies, and runs the bench with
# the given arguments.
set -eu

cargo build --quiet --release --package metaservice-cli --package metaservice-bench
exec target/release/metaservice-bench "$@"
