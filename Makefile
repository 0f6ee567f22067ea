# The commands a user and a contributor need. `make up` and `make test` work on a fresh Debian 12 with a Rust toolchain.

CARGO ?= cargo
export CORTEN_DATA_DIR ?= /var/lib/corten

.PHONY: up down build pgo deps test lint bench

up: deps
	@scripts/up

down:
	@corten=$${CARGO_TARGET_DIR:-target}/release/corten; \
	if [ -x $$corten ]; then $$corten down --data-dir $(CORTEN_DATA_DIR); else echo "nothing is built here: no cluster to stop"; fi

build: deps
	$(CARGO) build --release -p corten

pgo:
	@scripts/pgo

deps:
	@scripts/deps

test:
	@scripts/deps test
	@scripts/test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench:
	@scripts/bench
