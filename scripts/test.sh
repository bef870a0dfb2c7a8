#!/usr/bin/env bash
# Runs all tests: installs the stock clients into the tree, then has cargo run everything.
# Arguments go to the test runner. The feature is for tests/chaos; without FAULT_POINTS in the environment it does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"
clients=tests/clients

# A copy of what was installed tells whether anything has changed since.
if ! cmp -s "$clients/package-lock.json" "$clients/node_modules/.installed"; then
    echo "installing the JavaScript client into $clients/node_modules" >&2
    npm ci --prefix "$clients" --no-audit --no-fund --loglevel=error
    cp "$clients/package-lock.json" "$clients/node_modules/.installed"
fi
# python VENV REQUIREMENTS
python() {
    cmp -s "$2" "$1/.installed" && return
    echo "installing the Python client of ${2##*/} into $1" >&2
    mkdir -p target
    python3 -m venv --clear "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check -r "$2"
    cp "$2" "$1/.installed"
}
python target/test-venv "$clients/requirements.txt"
python target/test-venv-5.0 "$clients/requirements-5.0.txt"

# The tests hold thousands of connections.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --features anyworker/faults "$@"
    cargo test --workspace --features anyworker/faults --doc --quiet
else
    cargo test --workspace --features anyworker/faults "$@"
fi
