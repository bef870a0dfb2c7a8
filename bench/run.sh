#!/usr/bin/env bash
# Builds the load tool and measures target/release/anyworker with it; "make bench" builds that first.
# Arguments go to bench/compare.py, for example: bench/run.sh --seconds 5 --workers 8 --scenarios echo1,fanout
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:$HOME/.cargo/bin"

cargo build --profile quick -p rtbench
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
exec python3 bench/compare.py target/release/anyworker "$@"
