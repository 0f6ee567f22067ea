# The commands a user and a contributor need. `make up` and `make test` work on a fresh Debian 12 with a Rust toolchain.

CARGO ?= cargo
export CORTEN_DATA_DIR ?= /var/lib/corten

.PHONY: up down build deps test lint bench

up: deps
	@scripts/up

down:
	@$${CARGO_TARGET_DIR:-target}/release/corten down --data-dir $(CORTEN_DATA_DIR)

build: deps
	$(CARGO) build --release -p corten

deps:
	@scripts/deps

test: deps
	@scripts/test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

bench: build
	@scripts/bench
