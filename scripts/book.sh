#!/bin/sh
# Builds the manual of docs/ into target/book. A warning is an error.
set -eu

version=0.5.4
tools=${XDG_CACHE_HOME:-$HOME/.cache}/metaservice/tools
mdbook=$tools/bin/mdbook

case $("$mdbook" --version 2> /dev/null || true) in
    *"v$version"*) ;;
    *)
        echo "installing mdbook $version to $tools (cargo install, some minutes)"
        # It runs for a second: optimization takes longer than it saves.
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=0 \
            cargo install --quiet --locked --force --no-default-features --features search \
            --root "$tools" "mdbook@$version"
        ;;
esac

python3 scripts/links.py
output=$("$mdbook" build 2>&1) || {
    printf '%s\n' "$output" >&2
    exit 1
}
case $output in
    *WARN* | *ERROR*)
        printf '%s\n' "$output" >&2
        echo 'error: the book has warnings' >&2
        exit 1
        ;;
esac
echo 'the book is in target/book/index.html'
