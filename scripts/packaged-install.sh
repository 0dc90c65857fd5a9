#!/bin/sh
# Installs the tool from the packages, as from a registry: in an empty directory, without the
# checkout. The tool must contain the agent, and run a command in a machine.
set -eu
# Absolute: cargo runs in another directory below.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")
export CARGO_TARGET_DIR
trap 'rm -rf "$CARGO_TARGET_DIR/package" "${empty:-}"' EXIT
rm -rf "$CARGO_TARGET_DIR/package"

# Without building: the installation below builds all of it from the packages.
cargo publish --workspace --dry-run --no-verify --allow-dirty --quiet

empty=$(mktemp -d)
mkdir "$empty/.cargo"
echo '[patch.crates-io]' > "$empty/.cargo/config.toml"
for package in $(find "$CARGO_TARGET_DIR/package" -name '*.crate'); do
    directory=$(basename "$package" .crate)
    # Some versions of cargo leave two copies.
    [ ! -d "$empty/$directory" ] || continue
    tar -xzf "$package" -C "$empty"
    for file in README.md LICENSE-MIT LICENSE-APACHE; do
        [ -s "$empty/$directory/$file" ] || {
            echo "error: $file is not in the package $directory" >&2
            exit 1
        }
    done
    echo "${directory%-*} = { path = '$empty/$directory' }" >> "$empty/.cargo/config.toml"
done

# With the versions of the checkout. It runs one command: optimization takes longer than it saves.
cp Cargo.lock "$empty"/metaservice-cli-*/
cd "$empty"
cargo update --quiet --offline --workspace --manifest-path metaservice-cli-*/Cargo.toml
CARGO_PROFILE_DEV_DEBUG=false cargo install --debug --quiet --locked --path metaservice-cli-* --root "$empty/installed"
find . -maxdepth 1 -name 'metaservice*' -exec rm -r {} +
METASERVICE_NO_SNAPSHOT=1 installed/bin/metaservice run -- echo 'the installed tool works'
