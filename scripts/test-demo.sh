#!/usr/bin/env bash
# Tests `make demo` itself: one line on stdout, the page answers, the camera is there, it ends by
# itself, by SIGINT and by SIGTERM with status 0, leaves no process behind, and names the port that is
# in use together with the setting that changes it.
set -euo pipefail
# Job control: each background demo gets a process group of its own, and SIGINT works as at a terminal.
set -m
cd "$(dirname "$0")/.."

export DEMO_HTTP_PORT=$((20000 + RANDOM % 10000))
export DEMO_MQTT_PORT=$((DEMO_HTTP_PORT + 1))
export DEMO_TURN_PORT=$((DEMO_HTTP_PORT + 2))
export DEMO_DEVICE=demo-test-$$
work=$(mktemp -d)
passed=0
demo=''
trap 'status=$?; [[ -z $demo ]] || kill -TERM -- "-$demo" 2>/dev/null || true; rm -rf "$work"; exit "$status"' EXIT

fail() {
    echo "test-demo: $*" >&2
    sed 's/^/    /' "$work/out" "$work/err" >&2
    exit 1
}

ok() { echo "ok - $*"; passed=$((passed + 1)); }

# Starts the demo with these settings, in a process group of its own.
start() {
    : >"$work/out"
    env "$@" make --no-print-directory demo >"$work/out" 2>"$work/err" &
    demo=$!
}

# Until it has printed its line; it may have to build first.
await_line() {
    local patience=9000
    until grep -q '^viewer: ' "$work/out"; do
        kill -0 "$demo" 2>/dev/null || fail "the demo ended before it was up"
        ((patience-- > 0)) || fail "the demo was not up in 15 minutes"
        sleep 0.1
    done
}

# finish STATUS: the demo ends with this status within 20 s and leaves nothing behind.
finish() {
    local status=0 patience=200 group=$demo
    while kill -0 "$group" 2>/dev/null; do
        ((patience-- > 0)) || fail "the demo does not end"
        sleep 0.1
    done
    wait "$group" || status=$?
    demo=''
    [[ $status == "$1" ]] || fail "the demo ended with status $status instead of $1"
    if kill -0 -- "-$group" 2>/dev/null; then fail "the demo left a process behind"; fi
}

get() {
    exec 3<>"/dev/tcp/127.0.0.1/$DEMO_HTTP_PORT"
    printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$1" "$DEMO_HTTP_PORT" >&3
    timeout 10 cat <&3 | tr -d '\0'
    exec 3>&-
}

start DEMO_SECONDS=4 P2PCAM_APP_KEY='my"key+1%'
await_line
expected="viewer: http://127.0.0.1:$DEMO_HTTP_PORT/?device=$DEMO_DEVICE#key=my%22key%2B1%25"
[[ $(cat "$work/out") == "$expected" ]] || fail "expected exactly: $expected"
ok "one line on stdout"
page=$(get "/?device=$DEMO_DEVICE")
[[ $page == "HTTP/1.1 200"* && $page == *"<html"* ]] || fail "the page does not answer: ${page:0:300}"
ok "the viewer page answers"

# The same ports a second time.
env DEMO_SECONDS=4 make --no-print-directory demo >"$work/out2" 2>"$work/err2" && fail "two demos on one port"
grep -q "port $DEMO_HTTP_PORT is in use.*DEMO_HTTP_PORT" "$work/err2" || fail "$(cat "$work/err2")"
[[ ! -s $work/out2 ]] || fail "a line for a demo that does not run"
ok "a port in use is named, with the setting that changes it"
finish 0
[[ $(cat "$work/out") == "$expected" ]] || fail "something more on stdout"
ok "DEMO_SECONDS ends it with status 0 and no process left"

start
await_line
script=$(pgrep -P "$demo" -f scripts/demo.sh) || fail "make runs no script"
kill -INT "$script"
finish 0
ok "SIGINT ends it with status 0 and no process left"

start
await_line
kill -INT -- "-$demo"
# make itself says that it was interrupted; what counts is that nothing stays.
patience=200
while kill -0 -- "-$demo" 2>/dev/null; do
    ((patience-- > 0)) || fail "Ctrl-C does not end it"
    sleep 0.1
done
wait "$demo" || true
demo=''
ok "Ctrl-C leaves no process behind"

start
await_line
script=$(pgrep -P "$demo" -f scripts/demo.sh)
camera=$(pgrep -P "$script" -f "camera --device $DEMO_DEVICE")
kill -KILL "$camera"
finish 2
grep -q "the camera ended by itself" "$work/err" || fail "nothing said about the dead camera"
ok "a camera that dies is named"

echo "$passed passed, 0 failed"
