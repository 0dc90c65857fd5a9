#!/bin/sh
# The public API of each published library, one file each in api/. Without an argument, the script
# compares the files with the code. With --write, it writes them.
set -eu
version=0.52.0

# Another toolchain can list the same API in other words: only the one that wrote the files compares.
toolchain=$(rustc --version)
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
# All libraries at once, with the features of `make lint`, so that this builds no dependency again.
RUSTDOC="$PWD/scripts/rustdoc-json.sh" RUSTDOCFLAGS='-Zunstable-options --output-format json' \
    cargo doc --quiet --workspace --all-features --no-deps --lib
for library in crates/*/src/lib.rs; do
    directory=${library%/src/lib.rs}
    crate=${directory##*/}
    grep -q '^publish = false' "$directory/Cargo.toml" && continue
    name=$(sed -n '/^\[lib\]/,/^$/s/^name = "\(.*\)"/\1/p' "$directory/Cargo.toml")
    [ -n "$name" ] || name=$(echo "$crate" | tr - _)
    # Derived implementations are listed, so that a lost `Debug` or `Clone` is seen.
    cargo public-api --rustdoc-json "${CARGO_TARGET_DIR:-target}/doc/$name.json" \
        --simplified --simplified --color never > "$fresh/$crate.txt"
done
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
