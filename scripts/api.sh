#!/usr/bin/env bash
# Tests the control API of jobs in real virtual machines: its OpenAPI document with a validator, a
# whole life of a job with a client that is made from the document, and each operation with a
# property-based tester. The tools are installed in a directory under target/, at the versions below.
set -euo pipefail
metaservice=$1
seconds=${API_SECONDS:-90}
root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/target/api-tools
packages='schemathesis==4.32.5 openapi-spec-validator==0.9.0 openapi-python-client==0.29.1'
directory=$(mktemp -d)
job=api-$$

if [ "$(cat "$tools/packages" 2> /dev/null)" != "$packages" ]; then
    echo "installing $packages to $tools"
    python3 -m venv --clear "$tools"
    # The versions are words without spaces.
    # shellcheck disable=SC2086
    "$tools/bin/pip" install -q $packages
    echo "$packages" > "$tools/packages"
fi

cleanup() {
    kill "${bridge:-}" "${api:-}" "${machine:-}" "${life:-}" 2> /dev/null || true
    wait 2> /dev/null || true
    rm -rf "$directory"
}
trap cleanup EXIT

export XDG_STATE_HOME=$directory
mkfifo "$directory/started" "$directory/listening"
"$metaservice" api > "$directory/listening" &
api=$!
read -r socket < "$directory/listening"
# The client waits until the command runs.
"$metaservice" run --name "$job-life" -- \
    sh -c 'trap "echo hup" HUP; echo started; while :; do sleep 1; done' \
    > /dev/null 2> "$directory/life.err" &
life=$!
# The job prints a line when its command runs: no guess when it is ready.
"$metaservice" run --name "$job" -- sh -c 'echo started; exec sleep 3600' \
    > "$directory/started" 2> "$directory/job.err" &
machine=$!
if ! timeout 120 grep -q -m 1 started < <(tee "$directory/job.log" < "$directory/started"); then
    echo 'the job did not start:' >&2
    cat "$directory/job.err" >&2
    exit 1
fi

status=0
echo "== the OpenAPI document is valid"
curl -sf -o "$directory/openapi.json" --unix-socket "$socket" http://localhost/v1/openapi.json
"$tools/bin/openapi-spec-validator" "$directory/openapi.json" || status=1

echo "== a client that is made from the document runs a job from its start to its end"
"$tools/bin/openapi-python-client" generate --fail-on-warning --meta none \
    --path "$directory/openapi.json" --config "$root/scripts/api_client.yml" \
    --output-path "$directory/client/metaservice_client" || status=1
PYTHONPATH=$directory/client "$tools/bin/python" "$root/scripts/api_client.py" "$socket" \
    "$job-life" || {
    cat "$directory/life.err" >&2
    status=1
}

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
    "$tools/bin/schemathesis" run "$directory/openapi.json" --url "$url/v1" --no-color --warnings off \
        --phases examples,coverage,fuzzing --max-examples 20 --max-time "$seconds" \
        --generation-deterministic --request-timeout 60 \
        --checks "$checks" \
        "$@"
}

echo "== operations that do not end the job"
check --exclude-operation-id-regex '^(jobs|kill|signal|wait|exec|shell|dial|attach)$' || status=1
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
check --include-operation-id kill --mode negative || status=1
expect '204 501' -X POST "$url/v1/signal?signal=18"
# First wait, then kill: after the kill, the job may already be gone.
mkfifo "$directory/asked"
curl -s -v -o "$directory/wait.json" "$url/v1/wait" 2> "$directory/asked" &
waiting=$!
exec 3< "$directory/asked"
while read -r line <&3 && [[ $line != '> GET /v1/wait '* ]]; do :; done
expect 200 -X POST "$url/v1/kill"
wait "$waiting" || true
grep -q '"state":"failed"' "$directory/wait.json" || {
    echo "wait did not report the end: $(cat "$directory/wait.json")"
    status=1
}
exit "$status"
