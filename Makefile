# make run    build anyworker and run it: supervisor, four workers and a private Redis on 127.0.0.1:8000
# make test   run all tests
# make test-apps an external application: whole processes, and the tests of the Python package
# make chaos  break everything for five minutes at a time, under clients; CHAOS_SECONDS and SEED choose
# make fuzz   feed the parsers of what clients send for a minute; FUZZ_SECONDS chooses
# make bench  measure it for half a minute: bench/README.md
# make deb    build a Debian package: target/debian/anyworker_*.deb
# make docs   write docs/configure.md from supervisor.toml and the code
# make check  what continuous integration runs
#
# run, test, bench and deb install what is missing, and say so first.

SHELL := bash
.DEFAULT_GOAL := help
# Where rustup puts cargo, for shells that were open before.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help run build test test-apps chaos fuzz bench deb docs check clean

help:
	@sed -n 's/^# make /make /p' Makefile

build:
	@scripts/need.sh run
	cargo build --release

run:
	@scripts/need.sh run
	@[ -x target/quick/anyworker ] || echo "building anyworker and 160 libraries, once: about 3 minutes on two cores" >&2
	cargo build --profile quick
	@exec target/quick/anyworker run --config supervisor.toml

test:
	@scripts/need.sh test
	@scripts/test.sh

test-apps:
	@scripts/need.sh test
	@scripts/test.sh --test applications
	@target/test-venv/bin/python -m pip install --quiet --disable-pip-version-check -e 'clients/python[test]'
	@cd clients/python && ../../target/test-venv/bin/python -m pytest -q

chaos:
	@scripts/need.sh test
	@CHAOS_SECONDS=$${CHAOS_SECONDS:-300} scripts/test.sh --test chaos --test attacks

fuzz:
	@scripts/need.sh run
	cargo run --quiet -p anyworker-fuzz --bin mutate -- $${FUZZ_SECONDS:-60}

bench:
	@scripts/need.sh bench
	cargo build --release
	@bench/run.sh

deb:
	@scripts/need.sh deb
	cargo build --release
	target/release/anyworker manual target/manual
	cargo deb --no-build

docs:
	cargo run --quiet -- manual target/manual
	cp target/manual/configure.md docs/

check:
	@.ci/run

clean:
	cargo clean
	rm -rf tests/clients/node_modules
