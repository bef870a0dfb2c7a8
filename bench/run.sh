#!/usr/bin/env bash
# Runs bench/bench.mjs against target/release/anyworker; "make bench" builds that first.
# Arguments go to the program, for example: bench/run.sh --seconds 5 --workers 8 --only echo,fanout
set -euo pipefail
cd "$(dirname "$0")/.."
clients=tests/clients

# The stock client is that of the tests, in the same place and by the same mark.
if ! cmp -s "$clients/package-lock.json" "$clients/node_modules/.installed"; then
    echo "installing the JavaScript client into $clients/node_modules" >&2
    npm ci --prefix "$clients" --no-audit --no-fund --loglevel=error
    cp "$clients/package-lock.json" "$clients/node_modules/.installed"
fi
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec node bench/bench.mjs "$@"
