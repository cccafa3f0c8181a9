# The commands of the project. `make help` lists them.

SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(CURDIR)/target
# Crates that are no members of the workspace.
OUTSIDE := $(wildcard pause/program/Cargo.toml fuzz/Cargo.toml)
CACHE := $(or $(CORACLE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/coracle)
CORACLE := $(CARGO_TARGET_DIR)/debug/coracle
# The tests that `make test` repeats in the VM: limits, what an agent leaves and finds, networks and their VLANs.
VM_FILTER := limits:: edits::devices devices::a_pod devices::running generic::of_devices generic::real_devices kill:: lifecycle:: restart:: shm:: network::pods_ network::ports::a_ pods_of_vlans reloaded_or_executed_anew pods_in_scopes
# Of the tests in VMs those that it runs: the others take minutes more, by `make test-vm`.
VM_TESTS := harness:: reboot::pods_end_with root_suite::

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z0-9 -]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: build
build: ## Build the coracle binary for development
	@scripts/install-missing build
	cargo build --workspace --locked --bins

.PHONY: release
release: ## Build the coracle binary as it is installed
	@scripts/install-missing build
	cargo build --release --locked -p coracle

.PHONY: deb rpm tarball
deb rpm tarball: ## Make a package of the release build in target/packages: for Debian, for RPM, or static for any Linux
	@scripts/install-missing build package
	scripts/package $@ $(CARGO_TARGET_DIR)/packages

.PHONY: run
run: ## Build everything and run a pod: examples/two-containers.yaml
	@scripts/install-missing build run
	cargo build --workspace --locked --bins
	@scripts/run-example $(CORACLE)

.PHONY: test
test: ## Set up and pass every test; root tests run as root, those that cgroup v2 matters to also in a VM
	@scripts/install-missing build test
	CORACLE_TEST_MUTATIONS=$(or $(MUTATION_SECONDS),120) scripts/test
	@$(MAKE) --no-print-directory test-vm FILTER='$(VM_FILTER)' TESTS='$(VM_TESTS)'
	@$(MAKE) --no-print-directory soak

.PHONY: soak
soak: ## Kill what pods are made of at random, for SOAK_SECONDS (300), and see them come back (also part of test)
	@scripts/install-missing build test
	CORACLE_SOAK_SECONDS=$(or $(SOAK_SECONDS),300) scripts/test --soak

.PHONY: check
check: ## Formatting and lints
	@scripts/install-missing build
	cargo fmt --check
	@for manifest in $(OUTSIDE); do (set -x; cargo fmt --check --manifest-path $$manifest) || exit 1; done
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: test-vm
test-vm: ## Test in VMs with systemd and cgroup v2 alone (TESTS=part of names, SUITE=bookworm; of root tests FILTER=parts of names, PROGRAMS=parts of names of theirs)
	@scripts/install-missing build package vm
	tests/vm/payload $(CARGO_TARGET_DIR)/vm
	CORACLE_CACHE=$(CACHE) CORACLE_VM_PAYLOAD=$(CARGO_TARGET_DIR)/vm CORACLE_VM_FILTER='$(FILTER)' \
		CORACLE_VM_PROGRAMS='$(PROGRAMS)' CORACLE_VM_SUITE=$(SUITE) scripts/test --vm $(TESTS)

.PHONY: bench
bench: ## Take the figures of docs/benchmarks.md (release build; minutes)
	@scripts/install-missing build bench
	cargo build --release --locked -p coracle -p coracle-tests --bins
	cargo build --release --locked -p coracle-probe --example probe-cost
	cargo build --release --locked -p coracle-cni-plugins --example network-cost
	cargo build --release --locked -p coracle-device-manager --example device-cost
	gcc -O2 -Wall -Wextra -Werror -static -o $(CARGO_TARGET_DIR)/release/floor tests/bench/floor.c
	@scripts/as-root env CORACLE_BIN=$(CARGO_TARGET_DIR)/release/coracle \
		$(CARGO_TARGET_DIR)/release/coracle-bench $(CARGO_TARGET_DIR)/release/floor
	@echo && scripts/as-root $(CARGO_TARGET_DIR)/release/examples/probe-cost
	@echo && scripts/as-root $(CARGO_TARGET_DIR)/release/examples/network-cost
	@echo && $(CARGO_TARGET_DIR)/release/examples/device-cost
	@echo && scripts/as-root env CORACLE_BIN=$(CARGO_TARGET_DIR)/release/coracle \
		$(CARGO_TARGET_DIR)/release/coracle-bench devices $(CARGO_TARGET_DIR)/release/examples/device-cost
	@echo && scripts/as-root env CORACLE_BIN=$(CARGO_TARGET_DIR)/release/coracle \
		$(CARGO_TARGET_DIR)/release/coracle-bench images

.PHONY: deny
deny: ## Licences, advisories and duplicates of the dependencies (needs cargo-deny)
	@cargo deny --version >/dev/null 2>&1 || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked check --allow license-exception-not-encountered
	@for manifest in $(OUTSIDE); do (set -x; cargo deny --manifest-path $$manifest --config deny.toml --locked check \
		--allow license-not-encountered --allow license-exception-not-encountered --allow unnecessary-skip \
		--allow unmatched-skip) || exit 1; done

.PHONY: fuzz
fuzz: ## Fuzz what parses foreign bytes, FUZZ_SECONDS for each target (needs cargo-fuzz and a nightly Rust)
	@scripts/fuzz $(or $(FUZZ_SECONDS),300)

.PHONY: check-aarch64
check-aarch64: ## Compile for aarch64, and test there what asks nothing of a kernel (needs a cross toolchain, or mmdebstrap)
	scripts/check-aarch64

.PHONY: clean
clean: ## Remove what was built
	cargo clean
