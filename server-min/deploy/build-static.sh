#!/usr/bin/env bash
# Builds server-min as a static program and puts it into FOLDER: it needs no library of the machine it
# runs on. PROFILE is cargo's (release). Used by the Dockerfile, and by the test that runs the result in
# an empty root.
set -euo pipefail
[[ $# == 1 ]] || { echo "usage: $0 FOLDER" >&2; exit 2; }
folder=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")/../.."

profile=${PROFILE:-release}
target=$(rustc -vV | sed -n 's/^host: //p')
output=${CARGO_TARGET_DIR:-target}/$target
# A target of its own, so that build scripts and macros stay dynamic. glibc resolves names by files and
# DNS without a library since 2.34.
RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --locked --profile "$profile" --target "$target" -p server-min
case $profile in dev) built=$output/debug ;; *) built=$output/$profile ;; esac
strip -o "$folder/server-min" "$built/server-min"
