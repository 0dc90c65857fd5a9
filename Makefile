# The commands of the README. Each prints what it installs before it does.

CARGO ?= cargo
FUZZ_SECONDS ?= 60
FUZZ_JOBS ?= 1
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_TARGETS = shell_frame shell_session action payload header nic_frame nic_gateway transfer archive \
  requests dns client_hello authority policy fleet_view fleet_tunnel fleet_parse
# Coverage-guided fuzzing on a stable toolchain: the compiler flags that libFuzzer needs.
FUZZ_FLAGS = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing

.PHONY: help build setup demo api test test-fast lint book deny package api-list api-check fuzz man \
  bench bench-quick web web-check web-test web-budget

MAN ?= $(HOME)/.local/share/man/man1

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

build: ## the command line tool, at target/release/metaservice
	$(CARGO) build --release --package metaservice-cli

setup: ## install QEMU, a guest kernel and busybox if they are missing
	@sh crates/metaservice-cli/setup.sh

man: build ## manual pages, in MAN (by default ~/.local/share/man/man1)
	mkdir -p "$(MAN)"
	target/release/metaservice man "$(MAN)"

demo: setup build ## boot a real VM, run a command in it, show log, exit status and an artifact
	@sh scripts/demo.sh target/release/metaservice

api: setup build ## test the control API of a job in a real VM with a property-based tester
	@bash scripts/api.sh target/release/metaservice

test: setup ## all tests, including those in real VMs
	@sh scripts/test.sh

test-fast: ## the tests that need no machine and no QEMU
	$(CARGO) nextest run --workspace --profile fast

lint: ## format, clippy, API documentation, links, words, tests of promises, circles of modules
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --package metaservice -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --workspace --all-features --no-deps
	@python3 scripts/links.py
	@python3 scripts/guarantees.py
	@python3 scripts/words.py
	@python3 scripts/modules.py

book: ## the manual of docs/ as a book, at target/book/index.html
	@sh scripts/book.sh

web: ## build the web page from its source
	@sh scripts/web.sh --write

web-check: ## compare the assets of the web page with its source
	@sh scripts/web.sh

web-test: ## test the web page in a browser, with jobs in real VMs
	@sh scripts/web-test.sh

web-budget: build ## measure the web page: its size, a log of 1 GiB, a terminal
	@sh scripts/web-budget.sh

deny: ## the dependency policy: licences, duplicates, sources, advisories, unused ones
	@sh scripts/deny.sh

package: setup ## a dry run of publishing, and an installation of the tool from the packages
	@sh scripts/packaged-install.sh

api-check: ## compare the public API of the libraries with api/
	@sh scripts/api-list.sh

api-list: ## write the public API of the libraries to api/
	@sh scripts/api-list.sh --write

bench: setup ## measure all, write docs/performance.md (BENCH=loopback/log: only that)
	@sh scripts/bench.sh run $(BENCH)

bench-quick: setup ## measure for a minute, compare with docs/performance/data.json
	@sh scripts/bench.sh quick $(BENCH)

fuzz: ## run each fuzz target for FUZZ_SECONDS seconds, FUZZ_JOBS concurrently
	cd fuzz && RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --release --target $(HOST)
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P $(FUZZ_JOBS) -I TARGET \
	  sh scripts/fuzz.sh TARGET fuzz/target/$(HOST)/release/TARGET $(FUZZ_SECONDS)
