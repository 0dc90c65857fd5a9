#!/bin/sh
# Measures the page in Debian's Chromium with a log of 1 GiB, or of BUDGET_LINES lines of 108 bytes.
# The argument is the tool, by default target/release/metaservice. It fails on sizes, and never on
# times.
set -eu
cd "$(dirname "$0")/.."
METASERVICE=$(realpath "${1:-target/release/metaservice}")
export METASERVICE METASERVICE_NO_SNAPSHOT=1
sh scripts/web-packages.sh
cd crates/metaservice-web/page
node test/budget.mjs
