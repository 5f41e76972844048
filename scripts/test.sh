#!/usr/bin/env bash
# `make test`: every test there is, in order, from the quickest to the slowest; stops at the first that
# fails. Installs through apt, npm and cargo what is missing, where it may; a test whose component is
# missing fails.
set -euo pipefail
cd "$(dirname "$0")/.."

export CARGO_TERM_COLOR=never
tools=$PWD/target/tools
export PATH=$tools/bin:$PATH
# What the browser tests start.
export P2PCAM_SERVER_MIN=${CARGO_TARGET_DIR:-$PWD/target}/release/server-min
log=$(mktemp)
section=''

finish() {
    local status=$?
    [[ $status == 0 ]] || printf '\n=== FAILED in: %s\n' "$section" >&2
    summary
    rm -f "$log"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# What the test runners themselves counted.
summary() {
    awk -v seconds="$SECONDS" '
        /^test result: / { for (i = 2; i <= NF; i++) { if ($i ~ /^passed/) p += $(i-1); if ($i ~ /^failed/) f += $(i-1) } }
        /^# pass [0-9]+$/ || /^ℹ pass [0-9]+$/ { p += $3 }
        /^# fail [0-9]+$/ || /^ℹ fail [0-9]+$/ { f += $3 }
        /^[0-9]+ passed, [0-9]+ failed$/ { p += $1; f += $3 }
        END { printf "\n%d passed, %d failed, %d min %02d s\n", p, f, seconds / 60, seconds % 60 }' "$log"
}

# run TITLE COMMAND…
run() {
    section=$1
    local begin=$SECONDS
    shift
    printf '\n=== %s\n' "$section"
    "$@" 2>&1 | tee -a "$log"
    printf -- '--- %s: %d s\n' "$section" $((SECONDS - begin))
}

# --- What the tests need --------------------------------------------------------------------------

# Command and Debian package.
needed=(
    cc:gcc c++:g++ make:make valgrind:valgrind ffmpeg:ffmpeg chromium:chromium
    mosquitto:mosquitto mosquitto_pub:mosquitto-clients turnutils_uclient:coturn
    node:nodejs npm:npm pgrep:procps openssl:openssl
    redis-server:redis-server promtool:prometheus
    python3:python3 systemd-analyze:systemd
)

install_packages() {
    local pair missing=() as_root=()
    for pair in "${needed[@]}"; do
        command -v "${pair%%:*}" >/dev/null || [[ -x /usr/sbin/${pair%%:*} ]] || missing+=("${pair##*:}")
    done
    python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
    if ((${#missing[@]} == 0)); then
        echo "all there"
        return
    fi
    if [[ $(id -u) != 0 ]]; then
        sudo -n true 2>/dev/null || { echo "please install: apt-get install ${missing[*]}"; return 1; }
        as_root=(sudo -n)
    fi
    echo "installing: ${missing[*]}"
    "${as_root[@]}" apt-get update -q
    # No daemons where it can be had: the tests start what they need on ports of their own.
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
}

# Debian 12 has Node.js 18; the tests want 20, which npm has as well.
install_node() {
    local major
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    if ((major < 20)); then
        npm install --no-fund --no-audit --prefix "$tools/node" node@20
        mkdir -p "$tools/bin"
        ln -sf "$tools/node/node_modules/node/bin/node" "$tools/bin/node"
    fi
    node --version
    [[ ! -f hil-tests/browser/package.json ]] || npm ci --no-fund --no-audit --prefix hil-tests/browser
}

# Not optimised: compiling it takes two minutes instead of ten, running it two seconds instead of one.
install_cargo_deny() {
    command -v cargo-deny >/dev/null ||
        cargo install --quiet --locked --debug --root "$tools" --target-dir "$tools/build" cargo-deny@0.20.2
    rm -rf "$tools/build"
    cargo-deny --version
}

# --- The tests ------------------------------------------------------------------------------------

# Not the advisories: they need the network, and change without any change of ours. `make audit`.
check_dependencies() {
    cargo deny --locked --log-level error check --hide-inclusion-graph licenses bans sources
}

run "packages" install_packages
run "node" install_node
run "cargo-deny" install_cargo_deny
run "rustfmt" cargo fmt --all --check
run "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
run "licences, bans, sources" check_dependencies
# One by one: together, each would have the features that the other needs of the crates they share.
run "release build: server-min" cargo build --locked --release -p server-min
run "release build: sdk-ffi" cargo build --locked --release -p sdk-ffi
run "cargo test" cargo test --locked --workspace
run "mqtts" cargo test --locked -p sdk-core --features tls --test signaling_broker_tls
if compgen -G 'hil-tests/browser/*.test.mjs' >/dev/null; then
    run "browser" node --test --test-reporter=tap --test-concurrency=1 hil-tests/browser/*.test.mjs
fi
run "deployment" scripts/test-deploy.sh
run "demo" scripts/test-demo.sh
