#!/usr/bin/env bash
# `make demo`: builds the library, the server and the C camera, runs both on this machine, and prints
# one line to open in a browser. Everything else goes to stderr.
#
#   DEMO_SECONDS     end by itself after so many seconds (until Ctrl-C)
#   P2PCAM_APP_KEY   application key of the session API (a random one)
#   DEMO_HTTP_PORT   viewer page, session API, MQTT over WebSocket (8080)
#   DEMO_MQTT_PORT   MQTT over TCP (1883)
#   DEMO_TURN_PORT   STUN and TURN, UDP (3478)
#   DEMO_BIND        address to listen on (127.0.0.1); 0.0.0.0 lets a phone in the same network watch
#   DEMO_DEVICE      serial number of the camera (demo-camera)
#   DEMO_CLIP        H.264 or H.265 file to play (testdata/h264/clip-720p30.h264)
#   DEMO_AUDIO       sound to play: .opus-packets, .pcma or .pcmu (testdata/audio/glide.opus-packets)
set -euo pipefail
cd "$(dirname "$0")/.."

http_port=${DEMO_HTTP_PORT:-8080}
mqtt_port=${DEMO_MQTT_PORT:-1883}
turn_port=${DEMO_TURN_PORT:-3478}
bind=${DEMO_BIND:-127.0.0.1}
device=${DEMO_DEVICE:-demo-camera}
clip=${DEMO_CLIP:-testdata/h264/clip-720p30.h264}
audio=${DEMO_AUDIO:-testdata/audio/glide.opus-packets}
seconds=${DEMO_SECONDS:-}

say() { echo "demo: $*" >&2; }
fail() { say "$*"; exit 1; }

# --- What must be there ---------------------------------------------------------------------------

missing=()
command -v cargo >/dev/null || missing+=("Rust (rustup)")
command -v cc >/dev/null || missing+=("a C compiler (apt-get install gcc libc6-dev)")
if ((${#missing[@]})); then
    fail "please install: $(IFS=,; echo "${missing[*]}")"
fi
for name in DEMO_HTTP_PORT DEMO_MQTT_PORT DEMO_TURN_PORT; do
    value=${!name:-1}
    if [[ ! $value =~ ^[1-9][0-9]{0,4}$ ]] || ((value > 65535)); then
        fail "$name is \"$value\": expected a port, 1 to 65535"
    fi
done
[[ -z $seconds || $seconds =~ ^[0-9]+([.][0-9]+)?$ ]] ||
    fail "DEMO_SECONDS is \"$seconds\": expected a number of seconds"
[[ -r $clip ]] || fail "DEMO_CLIP: $clip cannot be read"
[[ -r $audio ]] || fail "DEMO_AUDIO: $audio cannot be read"

# --- Building -------------------------------------------------------------------------------------

say "building libp2pcam.a and server-min (some minutes the first time)"
# One by one: together, each would have the features that the other needs of the crates they share.
cargo build --locked --release -p server-min >&2
cargo build --locked --release -p sdk-ffi >&2
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/demo"

# What a static library written in Rust needs of the system, as rustc itself says.
system_libraries=$(rustc --crate-type staticlib --print native-static-libs \
    -o "$target/demo/empty.a" - </dev/null 2>&1 | sed -n 's/.*native-static-libs: //p')
read -ra libraries <<<"${system_libraries:--lpthread -ldl -lm}"
camera_program=$target/demo/camera
cc -std=c99 -Wall -Wextra -O2 -I include examples/c/camera.c examples/c/audio.c "$target/release/libp2pcam.a" \
    -Wl,--gc-sections "${libraries[@]}" -o "$camera_program" >&2

# --- Starting and ending --------------------------------------------------------------------------

umask 077
work=$(mktemp -d)
server='' camera='' timer=''

# Ends one process and waits until it is gone.
end() {
    local pid=$1 patience=50
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        if ((patience-- == 0)); then
            say "process $pid did not end in 5 s and is killed"
            kill -KILL "$pid" 2>/dev/null || true
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null || true
}

cleanup() {
    local status=$?
    trap '' INT TERM HUP
    # The camera first, so that it can say goodbye.
    end "$camera"
    end "$server"
    end "$timer"
    cp "$work"/*.log "$target/demo/" 2>/dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'say "ending"; exit 0' INT TERM HUP

# died NAME STATUS LOG: what its last words were, and what to do about them.
died() {
    local name=$1 status=$2 log=$3 setting
    say "$name ended by itself (status $status). Its last words:"
    tail -n 20 "$log" | sed 's/^/    /' >&2
    for setting in http mqtt turn; do
        if grep -q "port [0-9]* ($setting\.listen) is in use" "$log"; then
            local variable=DEMO_${setting^^}_PORT port=${setting}_port
            fail "port ${!port} is in use: stop what uses it, or choose another with $variable=…"
        fi
    done
    exit 1
}

# await NAME PID WORDS FILE LOG: until the words are in the file; at most 15 seconds.
await() {
    local name=$1 pid=$2 words=$3 file=$4 log=$5 patience=150
    until grep -q "$words" "$file"; do
        if ! kill -0 "$pid" 2>/dev/null; then
            local status=0
            wait "$pid" || status=$?
            died "$name" "$status" "$log"
        fi
        if ((patience-- == 0)); then
            tail -n 20 "$log" | sed 's/^/    /' >&2
            fail "$name did not come up in 15 s (see above)"
        fi
        sleep 0.1
    done
}

random() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }

# For a TOML string.
quote() {
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# For the fragment of a URL.
url_encode() {
    local text=$1 c i
    for ((i = 0; i < ${#text}; i++)); do
        c=${text:i:1}
        case $c in
            [a-zA-Z0-9._~-]) printf '%s' "$c" ;;
            *) printf '%s' "$c" | od -An -v -tx1 | tr -d '\n' | tr ' a-f' '%A-F' ;;
        esac
    done
}

app_key=${P2PCAM_APP_KEY:-$(random 16)}
cat >"$work/server-min.toml" <<TOML
app_keys = [$(quote "$app_key")]

[http]
listen = "$bind:$http_port"

[mqtt]
listen = "$bind:$mqtt_port"
device_secret = "$(random 32)"

[turn]
listen = ["$bind:$turn_port"]
# Camera, server and viewer share one machine or one home network here.
allow_loopback_peers = true
allow_private_peers = true
# The clip has 2 Mbit/s before headers; the default cap is for a service that pays for its traffic.
bandwidth_bps = 8_000_000

[session]
signing_key_file = "$work/signing.key"
TOML

server_min() {
    # The key is in the file already.
    env -u P2PCAM_APP_KEY "$target/release/server-min" --config "$work/server-min.toml" "$@"
}
public_key=$(server_min public-key)
password=$(server_min device-password "$device")

env -u P2PCAM_APP_KEY "$target/release/server-min" --config "$work/server-min.toml" \
    >"$work/server.out" 2>"$work/server.log" &
server=$!
await server-min "$server" '^ready: ' "$work/server.out" "$work/server.log"

host=$bind
broker_host=$bind
if [[ $bind == 0.0.0.0 ]]; then
    broker_host=127.0.0.1
    host=$(hostname -I | cut -d' ' -f1)
fi
P2PCAM_PASSWORD=$password "$camera_program" --device "$device" --broker "mqtt://$broker_host:$mqtt_port" \
    --service-key "$public_key" --file "$clip" --audio "$audio" --talkback "$work/heard.${audio##*.}" --loopback \
    >"$work/camera.log" 2>&1 &
camera=$!
await "the camera" "$camera" 'signaling up' "$work/camera.log" "$work/camera.log"

echo "viewer: http://$host:$http_port/?device=$device#key=$(url_encode "$app_key")"
say "logs: $work/*.log, afterwards $target/demo/*.log"
say "ends ${seconds:+after $seconds s, or }with Ctrl-C"

# --- Until one of them ends -----------------------------------------------------------------------

if [[ -n $seconds ]]; then
    sleep "$seconds" &
    timer=$!
fi
ended='' status=0
wait -n -p ended "$server" "$camera" ${timer:+"$timer"} || status=$?
case $ended in
    "$timer") timer='' ;;
    "$server") server=''; died server-min "$status" "$work/server.log" ;;
    "$camera") camera=''; died "the camera" "$status" "$work/camera.log" ;;
esac
