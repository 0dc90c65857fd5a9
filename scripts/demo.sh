#!/bin/sh
# Runs commands in a real virtual machine: log, exit status and an artifact.
set -eu
metaservice=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

run() {
    printf '\n$ metaservice run'
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_=:./-]*) printf " '%s'" "$word" ;;
            *) printf ' %s' "$word" ;;
        esac
    done
    echo
    status=0
    "$metaservice" run "$@" || status=$?
    printf '(exit status %s)\n' "$status"
}

run -- uname -a
run -e GREETING=hello -- sh -c 'for n in 1 2 3; do echo "$GREETING $n"; sleep 1; done; exit 3'
run --artifact "/tmp/report.txt:$directory/report.txt" -- sh -c 'free > /tmp/report.txt'
printf '\nThe artifact, now on the host:\n'
cat "$directory/report.txt"
