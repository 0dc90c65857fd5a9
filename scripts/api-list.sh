#!/bin/sh
# The public API of each published library, one file each in api/. Without an argument, the script
# compares the files with the code. With --write, it writes them.
#
# It needs a nightly toolchain, because rustdoc lists items as JSON only there. If there is none and
# none can be installed, the script prints this and compares nothing.
set -eu
version=0.52.0
nightly=${NIGHTLY:-nightly}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/api"
# No agent is built for a listing.
export DOCS_RS=1

if ! rustup run "$nightly" rustc --version > /dev/null 2>&1 &&
    ! rustup toolchain install "$nightly" --profile minimal > /dev/null 2>&1; then
    echo "public API: not compared, because there is no toolchain $nightly"
    exit 0
fi
# Another nightly can list the same API in other words: only the one that wrote the files compares.
toolchain=$(rustup run "$nightly" rustc --version)
if [ "${1:-}" != --write ] && [ "$toolchain" != "$(cat api/toolchain 2> /dev/null)" ]; then
    echo "public API: not compared, because api/ was written by $(cat api/toolchain) and this is $toolchain"
    exit 0
fi
case $(cargo public-api --version 2> /dev/null || true) in
    *" $version"*) ;;
    *)
        echo "installing cargo-public-api $version (cargo install, some minutes)"
        # It runs for seconds: optimization takes longer than it saves.
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
            cargo install --quiet --locked --force "cargo-public-api@$version"
        ;;
esac

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
for library in crates/*/src/lib.rs; do
    directory=${library%/src/lib.rs}
    crate=${directory##*/}
    grep -q '^publish = false' "$directory/Cargo.toml" && continue
    # Derived implementations are listed, so that a lost `Debug` or `Clone` is seen.
    cargo "+$nightly" public-api --package "$crate" --all-features --simplified --simplified \
        --color never > "$fresh/$crate.txt" 2> "$fresh/errors" || {
        cat "$fresh/errors" >&2
        exit 1
    }
done
rm -f "$fresh/errors"
echo "$toolchain" > "$fresh/toolchain"
if [ "${1:-}" = --write ]; then
    rm -rf api
    mkdir api
    cp "$fresh"/* api/
elif ! diff --unified=0 --new-file api "$fresh" >&2; then
    echo 'error: the public API differs from api/: if this is meant, run `make api-list`' >&2
    exit 1
fi
cat "$fresh"/*.txt | wc -l | xargs printf '%s public items in api/\n'
