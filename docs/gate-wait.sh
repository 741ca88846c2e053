#!/bin/sh
# May this SAE be released? Asks a HUSAI service and waits for the verdict, with curl and a POSIX shell.
#
#   sh gate-wait.sh CANDIDATE [BUNDLE]
#
# CANDIDATE is the SHA-256 of an SAE. With BUNDLE, the signed bundle of the newest decision is kept in that file.
# HUSAI_URL and HUSAI_KEY name the service and a key with the scopes read and gate. Further, in whole seconds where
# they are times: HUSAI_TIMEOUT (for everything; 3600), HUSAI_PATIENCE (with a service that is away or busy; 60),
# HUSAI_POLICY (strict), and HUSAI_REQUEST (the same one gives the same job; the CI system's number of this run).
# Exit as `husai gate wait`: 0 pass, 1 fail, 2 refused, 3 timeout, 4 inconclusive or blocked, 5 service error.
set -u

end() { # CODE TEXT
    printf 'gate-wait: %s\n' "$2" >&2
    exit "$1"
}

[ -n "${1:-}" ] && [ -n "${HUSAI_URL:-}" ] && [ -n "${HUSAI_KEY:-}" ] ||
    end 2 "usage: gate-wait.sh CANDIDATE [BUNDLE], with HUSAI_URL and HUSAI_KEY in the environment"
candidate=$1 bundle=${2:-} url=${HUSAI_URL%/} policy=${HUSAI_POLICY:-strict} job= hold=
timeout=${HUSAI_TIMEOUT:-3600} patience=${HUSAI_PATIENCE:-60}
case $timeout$patience in *[!0-9]*) end 2 "HUSAI_TIMEOUT and HUSAI_PATIENCE are whole seconds" ;; esac
request=${HUSAI_REQUEST:-${GITHUB_RUN_ID:-${CI_PIPELINE_ID:-$(date +%s)-$$}}}
deadline=$(($(date +%s) + timeout))
tmp=$(mktemp -d) || end 5 "no room for temporary files"
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# field NAME: a member of the document that came last, or of its result. Without Python it is the first text of that
# name; a quote inside a text is escaped, so no text can pass for a member.
if python3 -I -c '' 2>/dev/null; then
    field() {
        python3 -I -c 'import json, sys
document = json.load(sys.stdin)
value = document.get(sys.argv[1]) or (document.get("result") or {}).get(sys.argv[1]) or []
for line in [value] if isinstance(value, str) else value:
    print(line)' "$1" <"$tmp/body" 2>/dev/null
    }
else
    field() { tr '{,' '[\n*]' <"$tmp/body" | sed -n 's/^ *"'"$1"'": *"\([^"]*\)".*/\1/p' | sed -n 1p; }
fi

# ask PATH [CURL OPTION...]: leaves the answer in $tmp/body; waits while the service is away or busy. Fails when $hold,
# the seconds for which the service may hold the answer, was more than 1 and something on the way cut the request.
ask() {
    path=$1 trouble=
    shift
    while :; do
        left=$((deadline - $(date +%s)))
        [ "$left" -gt 0 ] || end 3 "no verdict after $timeout s${job:+; job $job goes on}"
        : >"$tmp/head"
        : >"$tmp/body"
        status=$(printf 'Authorization: Bearer %s\n' "$HUSAI_KEY" |
            curl -sS -H @- -D "$tmp/head" -o "$tmp/body" -w '%{http_code}' --connect-timeout 5 \
                --max-time $((left < 50 ? left : 50)) "$@" "$url$path") || status=000
        pause=$(tr -d '\r' <"$tmp/head" | sed -n 's/^[Rr]etry-[Aa]fter: *\([0-9][0-9]*\)$/\1/p')
        pause=${pause:-1} now=$(date +%s)
        case $status,${hold:-1} in
        2??,*) return ;;
        *,1) ;;
        000,* | 502,* | 504,*) return 1 ;;
        esac
        case $status in
        000 | 429 | 502 | 503 | 504)
            trouble=${trouble:-$now}
            if [ $((now + pause - trouble)) -le "$patience" ]; then
                sleep $((pause < left ? pause : left))
                continue
            fi
            ;;
        esac
        case $status in
        000) end 5 "no answer from $url" ;;
        5??) end 5 "$status from $url$path: $(cat "$tmp/body")" ;;
        *) end 2 "refused, $status: $(cat "$tmp/body")" ;;
        esac
    done
}

ask "/v1/gates/$policy/decisions" -H 'Content-Type: application/json' \
    -H "Idempotency-Key: gate-$request-$policy-$candidate" -d "{\"candidate\": \"$candidate\"}"
job=$(field id) hold=30
while :; do
    state=$(field state)
    case $state in
    succeeded) break ;;
    blocked) end 4 "job $job is blocked: something that it needs is missing" ;;
    timed_out) end 3 "job $job has timed out" ;;
    failed | cancelled) end 5 "job $job has $state: $(field reason)" ;;
    '') end 5 "what answers at $url is not HUSAI" ;;
    esac
    sleep "$pause"
    until left=$((deadline - $(date +%s))) && ask "/v1/jobs/$job?wait=$((left < hold ? left : hold))"; do
        hold=$(((hold + 1) / 2))
        sleep 1
    done
done
hold=

verdict=$(field verdict)
printf '%s: policy %s, candidate %s, job %s\n' "$verdict" "$policy" "$candidate" "$job"
field reasons | sed 's/^/  /'
if [ -n "$bundle" ]; then
    ask "/v1/gates/$policy/decisions/latest?subject=$candidate"
    [ "$(field job)" = "$job" ] || printf 'gate-wait: the newest decision is that of job %s\n' "$(field job)" >&2
    ask "/v1/decisions/$(field id)/bundle"
    cp "$tmp/body" "$bundle" || end 2 "cannot write $bundle"
fi
case $verdict in pass) exit 0 ;; fail) exit 1 ;; *) exit 4 ;; esac
