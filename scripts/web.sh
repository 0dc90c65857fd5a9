#!/bin/sh
# Builds the page of crates/metaservice-web from its source. Without an argument, the script compares
# the result with the assets in the repository. With --write, it writes them.
set -eu
cd "$(dirname "$0")/../crates/metaservice-web/page"
command -v npm > /dev/null || {
    echo "error: the page needs Node.js and npm" >&2
    exit 1
}
npm ci --no-fund --no-audit --loglevel=error
if grep -q '"resolved"' package-lock.json; then
    echo "error: package-lock.json has addresses of a registry: see .npmrc" >&2
    exit 1
fi
npm run --silent check
if [ "${1:-}" = --write ]; then
    npx vite build --logLevel warn
    exit 0
fi
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
npx vite build --logLevel warn --outDir "$fresh" --emptyOutDir
diff -r "$fresh" ../assets || {
    echo "error: the assets are not those of the source: run make web" >&2
    exit 1
}
size=$(cat "$fresh"/* | gzip -9 | wc -c)
echo "page: the assets are those of the source, $size bytes compressed"
[ "$size" -lt 1000000 ]
