#!/usr/bin/env bash
# Proves that the running stack decides: one pipeline over REST, its worker killed on the way, its verdict as exit code.
# Needs a healthy `docker compose` stack of this folder (COMPOSE_PROJECT_NAME, HUSAI_PORT and so on as it was started).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
exec </dev/null

OURS=(api control worker-cpu)
DECISION_SECONDS=900
LINES=40

in_api() { docker compose exec -T api "$@"; }

step() { printf 'ok %4ds  %s\n' "$SECONDS" "$*"; }

fail() {
    trap - ERR
    docker compose ps --all >&2 || true
    docker compose logs --tail "$LINES" "${OURS[@]}" >&2 || true
    printf 'ci-smoke: FAILED after %ds: %s\n' "$SECONDS" "$*" >&2
    exit 1
}
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

# pick EXPRESSION: what a Python expression makes of the JSON document `d` on standard input
pick() { in_api python -c "import json, sys; d = json.load(sys.stdin); print($1)"; }

# rest METHOD PATH [BODY]: the body of the answer; the key goes by file, since arguments are seen by everybody
rest() {
    if command -v curl >/dev/null; then
        curl --silent --show-error --fail --max-time 60 --noproxy '*' --request "$1" ${3:+--data "$3"} \
            --config <(printf 'header = "%s"\n' "Authorization: Bearer $key" "Idempotency-Key: $name" \
                "Content-Type: application/json") "http://$address$2"
    else
        printf '%s' "${3:-}" | in_api python -c 'if True:
            import os, pathlib, sys, urllib.request as http
            key = pathlib.Path(os.environ["HUSAI_HOME"], "key").read_text().strip()
            names = {"Authorization": f"Bearer {key}", "Idempotency-Key": sys.argv[3], "Content-Type": "application/json"}
            url = "http://127.0.0.1:8765" + sys.argv[2]
            ask = http.Request(url, sys.stdin.buffer.read() or None, names, method=sys.argv[1])
            print(http.urlopen(ask, timeout=60).read().decode())' "$1" "$2" "$name"
    fi
}

# husai ARGUMENT...: the command line, as the administrator
husai() {
    # shellcheck disable=SC2016  # expands inside
    in_api sh -c 'HUSAI_URL=http://127.0.0.1:8765 HUSAI_KEY=$(cat "$HUSAI_HOME/key") exec husai "$@"' sh "$@"
}

# family JOB: the jobs that it asked for and those that they asked for, one `id kind state attempt queue` a line
family() {
    local line
    rest GET "/v1/jobs?limit=200&parent=$1" \
        | pick '"\n".join(" ".join(map(str, (j["id"], j["kind"], j["state"], j["attempt"], j["queue"]))) for j in d["items"])' \
        | while read -r line; do
            [ -n "$line" ] || continue
            printf '%s\n' "$line"
            case $line in *" release.gate "*) family "${line%% *}" ;; esac
        done
}

# executing JOB: the id of a job below it that a worker executes now
executing() { family "$1" | awk '$3 == "running" && $5 != "control" && !n++ { print $1 }'; }

### The containers

published=$(docker compose ps --format '{{.Ports}}' | tr ',' '\n' | sed -n 's/^ *\(.*\)->.*/\1/p')
address=$(docker compose port api 8765) || fail "the port of the api is not published; is the stack up?"
[ "$published" = "$address" ] && [[ $address == 127.0.0.1:* ]] \
    || fail "published is $(tr '\n' ' ' <<<"$published"), not one port of 127.0.0.1"
step "only $address is published"

for service in "${OURS[@]}" postgres redis; do
    # shellcheck disable=SC2016  # expands inside
    found=$(docker compose exec -T "$service" sh -c '
        awk "\$1 == \"Uid:\" { print \"uid\", \$3 } \$1 == \"CapEff:\" { print \"capabilities\", \$2 }" /proc/1/status
        awk "\$2 == \"/\" { print \"root\", substr(\$4, 1, 2) }" /proc/mounts' | tr '\n' ' ')
    case $service:$found in
        *:"uid 0 "*) fail "$service runs as root" ;;
        postgres:*" capabilities 0000000000000000 root ro " | redis:*" capabilities 0000000000000000 root ro ") ;;
        *:"uid 65532 capabilities 0000000000000000 root ro ") ;;
        *) fail "$service is not hardened: $found" ;;
    esac
done
step "no service runs as root, writes to its root file system or has a capability; ours run as 65532"

found=$(in_api python -c 'import torch' 2>&1) && fail "the image of the api has torch"
[[ $found == *"No module named 'torch'"* ]] || fail "python does not work in the image of the api: $found"
step "the image of the api has no torch"

for place in api:signing/key.pem worker-cpu:signing/key.pem control:api/secret worker-cpu:api/secret; do
    docker compose exec -T "${place%%:*}" test ! -e "/run/husai/${place#*:}" || fail "${place%%:*} holds ${place#*:}"
done
step "only control holds the signing key, only the api the secret of the keys"

### The pipeline

# shellcheck disable=SC2016  # expands inside
key=$(in_api sh -c 'cat "$HUSAI_HOME/key"') name=ci-smoke-$(date +%s)-$$
[[ $key == husai_* ]] || fail "the api has made no key"
request='{"kind": "study.pipeline", "spec": {"preset": "smoke"}, "reuse": "never"}'
job=$(rest POST /v1/jobs "$request" | pick 'd["id"]')
[ "$(rest POST /v1/jobs "$request" | pick 'd["id"]')" = "$job" ] || fail "one Idempotency-Key made two jobs"
step "pipeline $job is submitted, once"

out=$(mktemp)
trap 'rm -f "$out"' EXIT
husai gate wait "$job" --timeout "$DECISION_SECONDS" >"$out" 2>&1 &
gate=$!

deadline=$((SECONDS + 240)) killed=
while [ -z "$killed" ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "no worker executed a job of the pipeline for long enough to be killed"
    victim=$(executing "$job")
    if [ -n "$victim" ]; then
        docker compose kill --signal KILL worker-cpu >/dev/null 2>&1
        # One that ended just before the kill proves nothing.
        if [ "$(rest GET "/v1/jobs/$victim" | pick 'd["state"]')" = running ]; then killed=$victim; fi
        docker compose start worker-cpu >/dev/null 2>&1
    fi
done
step "the worker was killed while it executed $killed, and started again"

deadline=$((SECONDS + DECISION_SECONDS)) state=
until [[ $state =~ ^(succeeded|failed|cancelled|timed_out)$ ]]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "the pipeline is still $state"
    state=$(rest GET "/v1/jobs/$job?wait=25" | pick 'd["state"]')
done
[ "$state" = succeeded ] || fail "the pipeline is $state: $(rest GET "/v1/jobs/$job" | pick 'd["reason"], d["detail"]')"
code=0
wait "$gate" || code=$?
step "the pipeline $state; \`husai gate wait\` exits $code: $(grep -m 1 -E '^(pass|fail|inconclusive): ' "$out" || tail -n 1 "$out")"

### What came of it

jobs=$(family "$job")
awk '$3 != "succeeded" { exit 1 }' <<<"$jobs" || fail "not every job succeeded: $jobs"
step "all $(wc -l <<<"$jobs") jobs of the pipeline succeeded"

again=$(awk -v id="$killed" '$1 == id { print $4 }' <<<"$jobs")
[ "$again" -ge 2 ] || fail "job $killed, whose worker was killed, succeeded in attempt $again"
step "job $killed succeeded in attempt $again"

gate=$(awk '$2 == "release.gate" { print $1 }' <<<"$jobs")
found=$(rest GET '/v1/decisions?limit=200' | pick "*[(n['id'], n['verdict']) for n in d['items'] if n['job'] == '$gate'][0], sum(n['job'] == '$gate' for n in d['items'])")
read -r decision verdict count <<<"$found"
[ "$count" = 1 ] || fail "gate $gate made $count decisions"
case $verdict:$code in
    pass:0 | fail:1 | inconclusive:4) ;;
    *) fail "the decision says $verdict, but \`husai gate wait\` exits $code: $(cat "$out")" ;;
esac
step "the one decision, $decision, says $verdict, as the exit code does"

found=$(husai gate show "$decision" --bundle "/tmp/$decision.json" 2>&1) || fail "$found"
found=$(husai verify "/tmp/$decision.json" 2>&1) || fail "the bundle of $decision does not verify: $found"
step "its bundle verifies offline"

found=$(rest GET /v1/workers | pick '" ".join(sorted({q for w in d["items"] if w["state"] == "ready" for q in w["queues"]}))')
[ "$found" = "benchmark control stress train" ] || fail "ready workers serve only: $found"
step "workers serve $found"

printf 'ci-smoke: passed in %ds, with the verdict %s\n' "$SECONDS" "$verdict"
