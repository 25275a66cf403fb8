#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine that has Rust, and nothing else.
#
#   scripts/install.sh up      what the example site needs
#   scripts/install.sh test    what the tests need as well
#   scripts/install.sh bench   the peers that bench/run measures, and its load
#
# What is there, from whatever source, is left alone. Without root or a sudo that asks no password it changes
# nothing, says the exact command, and fails.
set -euo pipefail

OLDEST_POSTGRES=14

main() {
    local missing=()
    case "${1:-}" in
    up) missing=($(missing_for_up)) ;;
    test) missing=($(missing_for_up) $(missing_for_test)) ;;
    bench) missing=($(missing_for_bench)) ;;
    *) fail "say what for: scripts/install.sh up, test or bench" ;;
    esac
    if [ ${#missing[@]} -gt 0 ]; then install_packages "$1" "${missing[@]}"; fi
    if [ "${2:-}" = packages ]; then return; fi # root for these alone: Rust belongs to whoever builds
    need_rust
    if [ "$1" = test ]; then need_nextest; fi
}

# The names of packages, for programs that are not there.

missing_for_up() {
    has_postgres || echo postgresql
    has cc || echo gcc libc6-dev
}

missing_for_test() {
    has dig || echo bind9-dnsutils
    has curl || echo curl ca-certificates
    has python3 || echo python3
    has git || echo git
    # A pool of connections as web applications have it, for Debian's own Python.
    /usr/bin/python3 -c 'import sqlalchemy, psycopg2' 2>/dev/null || echo python3-sqlalchemy python3-psycopg2
    # The bed of several machines: network namespaces joined by a bridge, parted by nftables.
    has_in_sbin ip || echo iproute2
    has_in_sbin nft || echo nftables
    has nsenter && has setpriv && has unshare || echo util-linux
}

missing_for_bench() {
    # Debian keeps servers off the PATH of users.
    local PATH=$PATH:/usr/sbin
    has haproxy || echo haproxy
    has nginx || echo nginx
    has wrk || echo wrk
    has strace || echo strace
    has taskset || echo util-linux
}

has() { command -v "$1" >/dev/null 2>&1; }
has_in_sbin() { has "$1" || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# A PostgreSQL server on PATH or in the folders of the distribution (Debian keeps it off PATH).
has_postgres() {
    local program major
    for program in $(command -v postgres) /usr/lib/postgresql/*/bin/postgres; do
        [ -x "$program" ] && [ -x "$(dirname "$(readlink -f "$program")")/initdb" ] || continue
        major=$("$program" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
        if [ "$major" -ge "$OLDEST_POSTGRES" ]; then return 0; fi
    done
    return 1
}

install_packages() {
    local purpose=$1
    shift
    has apt-get || fail "missing: $* (these are Debian's names); install them with this system's package manager"
    if [ "$(id -u)" = 0 ]; then
        apt_install "$@"
    elif has sudo && sudo -n true 2>/dev/null; then
        sudo -n "$0" "$purpose" packages
    else
        fail "missing: $*; to install them, run: sudo $0 $purpose packages"
    fi
}

apt_install() {
    case " $* " in *" postgresql "*) prevent_cluster ;; esac
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    local patient=(-o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
    apt-get "${patient[@]}" -q update
    # A server that comes with a package is not started: we want its program only.
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    # The old configuration file is kept: ours, written a moment ago, or the administrator's.
    apt-get "${patient[@]}" -q -y -o Dpkg::Options::=--force-confold --no-install-recommends install "$@"
}

# Debian's package starts a database on port 5432 unless told otherwise. We need its programs only.
prevent_cluster() {
    local settings=/etc/postgresql-common/createcluster.conf
    if [ -e "$settings" ]; then return; fi
    mkdir -p "$(dirname "$settings")"
    echo "create_main_cluster = false" >"$settings"
}

need_rust() {
    has cargo || fail "missing: Rust; install it from https://rustup.rs"
}

need_nextest() {
    if cargo nextest --version >/dev/null 2>&1; then return; fi
    say "installing cargo-nextest, which takes some minutes"
    cargo install --locked cargo-nextest
}

say() { echo "install: $*" >&2; }
fail() { say "$@"; exit 1; }

main "$@"
