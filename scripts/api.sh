#!/usr/bin/env bash
# Tests the control API of a job in a real virtual machine with a property-based tester.
# The tester is installed in a directory under target/, at the version below.
set -euo pipefail
metaservice=$1
seconds=${API_SECONDS:-90}
root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/target/api-tools
version=4.32.5
directory=$(mktemp -d)
job=api-$$

if ! "$tools/bin/schemathesis" --version 2> /dev/null | grep -qF "$version"; then
    echo "installing schemathesis $version to $tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q "schemathesis==$version"
fi

cleanup() {
    kill "${bridge:-}" "${machine:-}" 2> /dev/null || true
    wait 2> /dev/null || true
    rm -rf "$directory"
}
trap cleanup EXIT

export XDG_STATE_HOME=$directory
mkfifo "$directory/started"
# The job prints a line when its command runs: no guess when it is ready.
"$metaservice" run --name "$job" -- sh -c 'echo started; exec sleep 3600' \
    > "$directory/started" 2> "$directory/job.err" &
machine=$!
if ! timeout 120 grep -q -m 1 started < <(tee "$directory/job.log" < "$directory/started"); then
    echo 'the job did not start:' >&2
    cat "$directory/job.err" >&2
    exit 1
fi

# The tester supports only TCP. The bridge prints its port, and listens on the loopback interface.
mkfifo "$directory/port"
python3 "$root/scripts/bridge.py" "$directory/metaservice/jobs/$job/control.sock" > "$directory/port" &
bridge=$!
read -r port < "$directory/port"
url=http://127.0.0.1:$port

# A test needs answers that end: scripts/api_hooks.py removes `follow` and `intervalMs`, and `wait`
# is excluded. A 501 is correct for an agent of version 1. An undocumented status fails, for example
# 500.
export SCHEMATHESIS_HOOKS=api_hooks PYTHONPATH=$root/scripts
checks=status_code_conformance,content_type_conformance
checks=$checks,response_schema_conformance,negative_data_rejection
check() {
    "$tools/bin/schemathesis" run "$url/v1/openapi.json" --no-color --warnings off \
        --phases examples,coverage,fuzzing --max-examples 20 --max-time "$seconds" \
        --generation-deterministic --request-timeout 60 \
        --checks "$checks" \
        "$@"
}

status=0
echo "== operations that do not end the job"
check --exclude-operation-id-regex '^(kill|signal|wait|exec|shell|dial)$' || status=1
echo "== a websocket request without an upgrade is refused"
expect() { # CODES CURL-ARGUMENT...
    codes=$1
    shift
    code=$(curl -s -o /dev/null -w '%{http_code}' "$@")
    case " $codes " in *" $code "*) echo "$*: $code" ;; *) echo "$*: $code instead of $codes"; status=1 ;; esac
}
for target in 'exec?exec=%7B%7D' 'shell?command=%5B%5D' 'dial?host=localhost&port=1'; do
    expect 400 "$url/v1/$target"
done
echo "== operations that end the job: invalid requests are refused, then one of each is sent"
check --include-operation-id signal --mode negative || status=1
expect '204 501' -X POST "$url/v1/signal?signal=18"
# First wait, then kill: after the kill, the job may already be gone.
mkfifo "$directory/asked"
curl -s -v -o "$directory/wait.json" "$url/v1/wait" 2> "$directory/asked" &
waiting=$!
exec 3< "$directory/asked"
while read -r line <&3 && [[ $line != '> GET /v1/wait '* ]]; do :; done
expect 204 -X POST "$url/v1/kill"
wait "$waiting" || true
grep -q '"state":"failed"' "$directory/wait.json" || {
    echo "wait did not report the end: $(cat "$directory/wait.json")"
    status=1
}
exit "$status"
