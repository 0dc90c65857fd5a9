#!/bin/sh
# Checks the dependency policy of deny.toml. Advisories need the advisory database: if it cannot be
# fetched, the script prints this and checks the rest.
set -eu
if ! command -v cargo-deny > /dev/null; then
    echo 'installing cargo-deny (cargo install, some minutes)'
    # It runs for a second: optimization takes longer than it saves.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        cargo install --quiet --locked cargo-deny
fi
cargo deny --log-level error check bans licenses sources
if ! advisories=$(cargo deny --log-level error check advisories 2>&1); then
    case $advisories in
        *'failed to fetch advisory database'* | *'failed to load advisory database'*)
            echo 'advisories: not checked, because the database cannot be fetched' ;;
        *) printf '%s\n' "$advisories" >&2; exit 1 ;;
    esac
fi
