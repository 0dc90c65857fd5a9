#!/usr/bin/env bash
# The control API of a real job in a real virtual machine against a property-based tester.
# The tester goes to a folder of its own under target/, at the version that is written here.
set -euo pipefail
metaservice=$1
seconds=${API_SECONDS:-90}
root=$(cd "$(dirname "$0")/.." && pwd)
tools=$root/target/api-tools
version=4.32.5
folder=$(mktemp -d)
job=api-$$

if ! "$tools/bin/schemathesis" --version 2> /dev/null | grep -qF "$version"; then
    echo "installing schemathesis $version into $tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install -q "schemathesis==$version"
fi

cleanup() {
    kill "${bridge:-}" "${machine:-}" 2> /dev/null || true
    wait 2> /dev/null || true
    rm -rf "$folder"
}
trap cleanup EXIT

export XDG_RUNTIME_DIR=$folder
mkfifo "$folder/started"
# The job says its first word when its command runs: nobody has to guess when.
"$metaservice" run --name "$job" -- sh -c 'echo started; exec sleep 3600' > "$folder/started" 2> "$folder/job.err" &
machine=$!
if ! timeout 120 grep -q -m 1 started < <(tee "$folder/job.log" < "$folder/started"); then
    echo 'the job did not start:' >&2
    cat "$folder/job.err" >&2
    exit 1
fi

# The tester speaks TCP only. The bridge tells its port and serves this host alone.
mkfifo "$folder/port"
python3 "$root/scripts/bridge.py" "$folder/metaservice/$job.sock" > "$folder/port" &
bridge=$!
read -r port < "$folder/port"
url=http://127.0.0.1:$port

# An answer that never ends is no test: scripts/api_hooks.py takes `follow` and `intervalMs` away, and
# `wait` is left out. A 501 is the truth about an agent of version 1; what is not documented,
# a 500 among it, fails.
export SCHEMATHESIS_HOOKS=api_hooks PYTHONPATH=$root/scripts
check() {
    "$tools/bin/schemathesis" run "$url/v1/openapi.json" --no-color --warnings off \
        --phases examples,coverage,fuzzing --max-examples 20 --max-time "$seconds" \
        --generation-deterministic --request-timeout 60 \
        --checks status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection \
        "$@"
}

status=0
echo "== operations that leave the job alone"
check --exclude-operation-id-regex '^(kill|signal|wait|exec|shell|dial)$' || status=1
echo "== a websocket that is no websocket is refused"
expect() { # codes, then what curl is given
    codes=$1
    shift
    code=$(curl -s -o /dev/null -w '%{http_code}' "$@")
    case " $codes " in *" $code "*) echo "$*: $code" ;; *) echo "$*: $code instead of $codes"; status=1 ;; esac
}
for target in 'exec?exec=%7B%7D' 'shell?command=%5B%5D' 'dial?host=localhost&port=1'; do
    expect 400 "$url/v1/$target"
done
echo "== operations that end the job: what is wrong is refused, then one of each"
check --include-operation-id signal --mode negative || status=1
expect '204 501' -X POST "$url/v1/signal?signal=18"
# Killed only once somebody waits, or there may be nobody left to ask.
mkfifo "$folder/asked"
curl -s -v -o "$folder/wait.json" "$url/v1/wait" 2> "$folder/asked" &
waiting=$!
exec 3< "$folder/asked"
while read -r line <&3 && [[ $line != '> GET /v1/wait '* ]]; do :; done
expect 204 -X POST "$url/v1/kill"
wait "$waiting" || true
grep -q '"state":"failed"' "$folder/wait.json" || {
    echo "wait did not tell the end: $(cat "$folder/wait.json")"
    status=1
}
exit "$status"
