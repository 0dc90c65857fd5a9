#!/bin/sh
# Checks the dependency policy of deny.toml, and that each dependency is used. Advisories need the
# advisory database: if it cannot be fetched, the script prints this and checks the rest.
set -eu
for tool in cargo-deny cargo-machete; do
    command -v $tool > /dev/null && continue
    echo "installing $tool (cargo install, some minutes)"
    # It runs for a second: optimization takes longer than it saves.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        cargo install --quiet --locked $tool
done
mkdir -p target
cargo machete > target/machete.log || {
    cat target/machete.log >&2
    exit 1
}
cargo deny --log-level error check bans licenses sources
if ! advisories=$(cargo deny --log-level error check advisories 2>&1); then
    case $advisories in
        *'failed to fetch advisory database'* | *'failed to load advisory database'*)
            echo 'advisories: not checked, because the database cannot be fetched' ;;
        *) printf '%s\n' "$advisories" >&2; exit 1 ;;
    esac
fi
