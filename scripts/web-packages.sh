#!/bin/sh
# Installs what the tests of the page need: Chromium, and the packages of the page.
set -eu
cd "$(dirname "$0")/../crates/metaservice-web/page"
if ! command -v chromium > /dev/null; then
    echo 'installing chromium'
    apt-get install -q -y --no-install-recommends chromium > /dev/null
fi
[ -d node_modules ] || npm ci --no-fund --no-audit --loglevel=error
