#!/bin/sh
# Builds tool and bench, in one go as they share much, and runs the measures. Arguments are the bench's own.
set -eu

cargo build --quiet --release --package metaservice-cli --package metaservice-bench
exec target/release/metaservice-bench "$@"
