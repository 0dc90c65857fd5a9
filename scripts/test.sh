#!/bin/sh
# All tests. `make setup` has got what a machine needs; this gets what only tests need.
set -eu

# Program and the Debian package that has it.
lacking=''
while read -r program package; do
    command -v "$program" > /dev/null || lacking="$lacking $package"
done << 'LIST'
curl curl
python3 python3
mke2fs e2fsprogs
mkfs.fat dosfstools
mcopy mtools
syslinux syslinux
qemu-img qemu-utils
LIST
if [ -n "$lacking" ]; then
    if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
        echo "installing for the tests:$lacking"
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $lacking > /dev/null
    else
        echo "error: the tests need these packages:$lacking" >&2
        echo "hint: sudo apt-get install$lacking" >&2
        exit 1
    fi
fi

if command -v cargo-nextest > /dev/null; then
    cargo nextest run --workspace
else
    # One after the other: too many emulated machines at once are too slow for their deadlines.
    cargo test --workspace --all-targets -- --test-threads 2
fi
cargo test --workspace --doc
