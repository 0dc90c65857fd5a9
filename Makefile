# The commands of the README. Each says what it installs before it does.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= 1
# What a release build is of: features are shared within one, so two of different packages build much twice.
PACKAGES ?= --package metaservice-cli
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_TARGETS = shell_frame shell_session action payload header nic_frame transfer archive requests
# Coverage-guided fuzzing on a stable toolchain: what libFuzzer needs of the compiler.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing

.PHONY: help build setup demo api test lint deny fuzz man bench bench-quick

MAN ?= $(HOME)/.local/share/man/man1

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## the command line tool, at target/release/metaservice
	$(CARGO) build --release $(PACKAGES)

setup: ## QEMU, a guest kernel and busybox, where they are missing
	@sh crates/metaservice-cli/setup.sh

man: build ## manual pages, in MAN (by default ~/.local/share/man/man1)
	target/release/metaservice man "$(MAN)"

demo: setup build ## boot a real VM, run a command in it, show log, status and an artifact
	@sh scripts/demo.sh target/release/metaservice

api: setup build ## the control API of a job in a real VM against a property-based tester
	@bash scripts/api.sh target/release/metaservice

test: setup ## all tests, those in real VMs too
	@sh scripts/test.sh

lint: ## format, clippy, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --no-deps

deny: ## the dependency policy: licences, duplicates, sources, advisories
	@sh scripts/deny.sh

bench: setup ## measure all against peers and limits: docs/performance.md (BENCH=loopback/log for less)
	@sh scripts/bench.sh run $(BENCH)

bench-quick: setup ## a minute's measures, and what moved against docs/performance/data.json
	@sh scripts/bench.sh quick $(BENCH)

fuzz: ## each fuzz target for FUZZ_SECONDS seconds, FUZZ_JOBS at once
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --target $(HOST)
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P $(FUZZ_JOBS) -I TARGET \
	  sh scripts/fuzz.sh TARGET fuzz/target/$(HOST)/release/TARGET $(FUZZ_SECONDS)
