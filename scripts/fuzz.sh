#!/bin/sh
# Runs one fuzz target. Prints its output at the end, because others can run at the same time.
set -eu
target=$1 program=$2 seconds=$3

mkdir -p "fuzz/artifacts/$target" "fuzz/target/corpus/$target"
status=0
output=$("$program" -max_total_time="$seconds" -verbosity=0 -print_final_stats=1 \
    -rss_limit_mb=1024 -artifact_prefix="fuzz/artifacts/$target/" \
    "fuzz/target/corpus/$target" "fuzz/corpus/$target" 2>&1) || status=$?
printf '== %s\n%s\n' "$target" "$output"
exit "$status"
