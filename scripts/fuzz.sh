#!/usr/bin/env bash
# `make fuzz`: every fuzz target for FUZZ_SECONDS each (60), from the committed corpora. Needs a
# nightly compiler (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz).
# FUZZ_TARGETS names some of them.
set -euo pipefail
cd "$(dirname "$0")/../sdk-core"

command -v cargo-fuzz >/dev/null || { echo "please install: cargo install cargo-fuzz" >&2; exit 1; }
rustup run nightly true 2>/dev/null || { echo "please install: rustup toolchain install nightly" >&2; exit 1; }

seconds=${FUZZ_SECONDS:-60}
for target in ${FUZZ_TARGETS:-$(cargo +nightly fuzz list)}; do
    echo "=== $target, $seconds s"
    mkdir -p "fuzz/corpus/$target"
    cargo +nightly fuzz run "$target" -- -max_total_time="$seconds" -max_len=8192 -print_final_stats=1 \
        -timeout=10 2>&1 | grep -E 'stat::|ERROR|panicked|SUMMARY|artifact' || true
    if compgen -G "fuzz/artifacts/$target/*" >/dev/null; then
        echo "$target failed: see sdk-core/fuzz/artifacts/$target" >&2
        exit 1
    fi
    # What the run found is kept in its smallest form.
    cargo +nightly fuzz cmin "$target" >/dev/null 2>&1
done
