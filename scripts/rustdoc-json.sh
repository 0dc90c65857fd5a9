#!/bin/sh
# rustdoc with its unstable options: only they list items as JSON. Cargo and rustc do not get the
# variable, because it would build all dependencies once more.
RUSTC_BOOTSTRAP=1 exec rustdoc "$@"
