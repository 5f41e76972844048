#!/usr/bin/env bash
# Writes sdk-ffi/at-rest.ld anew: the functions that the example camera runs from its start until it is
# connected to its broker and nobody watches. A firmware that is linked with it has them side by side, in
# a few hundred kilobytes, instead of scattered over all of the library: memory that the system need not
# hold. Needs valgrind and mosquitto. PROFILES names cargo's profiles (release firmware).
#
# A function that has changed its name since is merely not moved.
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in valgrind mosquitto cc awk; do
    command -v "$tool" >/dev/null || { echo "please install: $tool" >&2; exit 1; }
done
target=${CARGO_TARGET_DIR:-target}
port=${AT_REST_PORT:-21883}
work=$(mktemp -d)
broker=''
trap '[[ -z $broker ]] || kill "$broker"; rm -rf "$work"' EXIT

mosquitto -p "$port" >"$work/broker.log" 2>&1 &
broker=$!

# executed CAMERA CALLS: the functions of the library that ran, as callgrind noted.
#
# Valgrind names a program and a function once, and gives a number to say it again. Where two functions
# came out the same, it knows one of them, and the section has the other's name. A hash is part of the
# names, and differs from compiler to compiler.
executed() {
    awk -v camera="$1" '
        FNR == NR { at[$3] = $1; all[$1] = all[$1] " " $3; next }
        match($0, /^c?(ob|fn)=\([0-9]+\) /) {
            key = $0; sub(/^c/, "", key); sub(/ .*/, "", key)
            name = $0; sub(/^[^ ]* /, "", name)
            names[key] = name
        }
        /^ob=/ { sub(/ .*/, ""); program = names[$0] }
        /^fn=/ && program == camera {
            sub(/ .*/, "")
            name = names[$0]
            sub(/\x27.*/, "", name)
            count = split(name in at ? all[at[name]] : name, same, " ")
            for (i = 1; i <= count; i++) print same[i]
        }' <(nm "$1" | grep -i ' t ') "$2" |
        grep -E '^(_R|_ZN|p2p_|ring_core|__[a-z]+[dt]i[34]$)' |
        sed -E 's/\.llvm\..*//; s/Cs[0-9A-Za-z]+_/Cs*_/g; s/17h[0-9a-f]{16}E$/17h*E/'
}

for profile in ${PROFILES:-release firmware}; do
    cargo build --locked --profile "$profile" -p sdk-ffi
    camera=$work/camera-$profile
    cc -std=c99 -O2 -I include examples/c/camera.c examples/c/audio.c "$target/$profile/libp2pcam.a" \
        -Wl,--gc-sections -lpthread -ldl -o "$camera"
    valgrind --quiet --tool=callgrind --demangle=no --callgrind-out-file="$work/$profile.calls" \
        "$camera" --device at-rest --password none --broker "mqtt://127.0.0.1:$port" --include-loopback --duration 10 \
        --service-key d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a \
        --file testdata/h264/clip-720p30.h264 >"$work/$profile.log" 2>&1
    grep -q 'signaling up' "$work/$profile.log" || { cat "$work/$profile.log" >&2; exit 1; }
    executed "$camera" "$work/$profile.calls" >>"$work/executed"
done
LC_ALL=C sort -u "$work/executed" >"$work/functions"

{
    echo '/* By scripts/at-rest.sh: what a camera runs while nobody watches. See docs/c-api.md, "Linking". */'
    echo 'SECTIONS'
    echo '{'
    echo '    .text.at_rest :'
    echo '    {'
    sed 's/.*/        *(.text.&* .text.unlikely.&*)/' "$work/functions"
    # In assembler, of which each file is one section.
    echo '        *p256*asm*.o(.text)'
    echo '        *sha256*.o(.text)'
    echo '    }'
    echo '}'
    echo 'INSERT BEFORE .text;'
} >sdk-ffi/at-rest.ld
echo "$(wc -l <"$work/functions") functions in sdk-ffi/at-rest.ld"
