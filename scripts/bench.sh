#!/bin/sh
# Runs the measures; `make build` has built the tool and its agent. Arguments are the bench's own.
set -eu

cargo run --quiet --release --package metaservice-bench -- "$@"
