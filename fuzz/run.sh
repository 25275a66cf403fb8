#!/usr/bin/env bash
# Runs each fuzz target for some seconds. With cargo-fuzz and a nightly compiler these are libFuzzer's runs, over
# the corpus of the tree (what is new goes to fuzz/target); without, the test that replays and changes the corpus.
#
#   fuzz/run.sh [SECONDS] [TARGET…]      60 seconds, and all targets
set -euo pipefail
cd "$(dirname "$0")"

main() {
    local seconds=${1:-60}
    shift || true
    local targets=("$@")
    if [ ${#targets[@]} = 0 ]; then targets=(request response chunked proxy dns frame postgres); fi
    if ! has_fuzzer; then
        echo "fuzz: no cargo-fuzz or no nightly compiler; replaying the corpus of HTTP on stable Rust"
        DOLMEN_FUZZ_SECONDS=$seconds cargo nextest run --locked -p relay --test strict --success-output final \
            --manifest-path ../Cargo.toml replay
        return
    fi
    for target in "${targets[@]}"; do fuzz "$target" "$seconds"; done
}

has_fuzzer() { cargo fuzz --version >/dev/null 2>&1 && cargo +nightly --version >/dev/null 2>&1; }

fuzz() {
    local target=$1 seconds=$2 words=()
    mkdir -p "target/new/$target"
    case $target in request | response | chunked) words=(-dict=http.dict) ;; esac
    echo "fuzz: $target for $seconds seconds"
    cargo +nightly fuzz run --fuzz-dir . "$target" "target/new/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -print_final_stats=1 "${words[@]}"
}

main "$@"
