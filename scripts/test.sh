#!/usr/bin/env bash
# Runs every check and every test, whatever fails, and ends with one line: N passed, N failed.
# The numbers are nextest's own; a failed check counts as one failure more, and so does a build without tests.
set -uo pipefail
cd "$(dirname "$0")/.."

failed_checks=0

log=$(mktemp)
trap 'rm -f "$log"' EXIT

main() {
    check cargo fmt --all --check
    check cargo clippy --workspace --all-targets --locked -- -D warnings
    # The tests run these programs; nextest itself builds only those of the package under test.
    check cargo build --workspace --bins --locked
    # The engine reads in two ways. Below, it is the one that this kernel allows: io_uring, on most.
    # Of the whole workspace, since `-p` would build all dependencies once more, with other features.
    check env DOLMEN_IO=epoll cargo nextest run --workspace --locked --no-fail-fast \
        -E 'package(relay) | package(balancer) | package(web)'
    say cargo nextest run --workspace
    cargo nextest run --workspace --locked --no-fail-fast --color never 2>&1 | tee "$log"
    conclude "${PIPESTATUS[0]}" "$log"
}

check() {
    say "$@"
    if "$@"; then return; fi
    failed_checks=$((failed_checks + 1))
    echo "test: failed: $*"
}

# Tests that were to run and did not (nextest then says "7/9 tests run") count as failed.
conclude() {
    local status=$1 log=$2 wanted passed failed
    wanted=$(sed -nE 's/^ *Summary \[.*\] ([0-9]+\/)?([0-9]+) tests? run:.*/\2/p' "$log" | tail -n 1)
    passed=$(sed -nE 's/^ *Summary \[.* tests? run: ([0-9]+) passed.*/\1/p' "$log" | tail -n 1)
    failed=$((${wanted:-1} - ${passed:-0}))
    if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
    failed=$((failed + failed_checks))
    echo "${passed:-0} passed, $failed failed"
    [ "$failed" = 0 ]
}

say() { echo "test: $*"; }

main "$@"
