#!/bin/sh
# Tests the page in Debian's Chromium, against jobs in real machines. The argument is the tool, by
# default target/debug/metaservice. Pictures are written to SHOTS (by default target/web-shots). With
# WRITE=1, those of the guide are written to docs/how-to/web.
set -eu
cd "$(dirname "$0")/.."
tool=$(realpath "${1:-target/debug/metaservice}")
SHOTS=$(realpath -m "${SHOTS:-target/web-shots}")
export SHOTS METASERVICE_NO_SNAPSHOT=1
sh scripts/web-packages.sh
cd crates/metaservice-web/page
METASERVICE=$tool node test/page.mjs
if [ "${WRITE:-}" = 1 ]; then
    cd ../../..
    for picture in docs/how-to/web/*.png; do
        cp "$SHOTS/$(basename "$picture")" "$picture"
    done
fi
