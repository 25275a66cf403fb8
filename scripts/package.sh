#!/usr/bin/env bash
# Makes the Debian package: the binary, the unit, and the accounts that servers run under.
#
#   scripts/package.sh [BINARY [FOLDER]]     target/dist/dolmen, into target/
#
# The same files and time give the same package. DOLMEN_PACKAGE_COMPRESSION=none is for tests.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${1:-target/dist/dolmen}
into=${2:-target}
version=$(sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -n 1)

main() {
    [ -x "$binary" ] || fail "$binary is not there: cargo build --profile dist --locked --bins"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    root=$work/root
    install -D -m 755 "$binary" "$root/usr/bin/dolmen"
    install -D -m 644 packaging/dolmen@.service "$root/lib/systemd/system/dolmen@.service"
    for page in README.md CHANGELOG.md docs/machines.md docs/upgrade.md LICENSE-APACHE LICENSE-MIT; do
        install -D -m 644 "$page" "$root/usr/share/doc/dolmen/$(basename "$page")"
    done
    control
    scripts_of_package
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
    find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    mkdir -p "$into"
    dpkg-deb "-Z${DOLMEN_PACKAGE_COMPRESSION:-xz}" --root-owner-group --build "$root" "$into/dolmen_${version}_$architecture.deb" >&2
    echo "$into/dolmen_${version}_$architecture.deb"
}

control() {
    architecture=$(dpkg --print-architecture)
    mkdir -p "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<END
Package: dolmen
Version: $version
Architecture: $architecture
Maintainer: the Dolmen project <dolmen@localhost>
Depends: libc6, libgcc-s1, passwd
Recommends: postgresql, nftables, iproute2
Section: httpd
Priority: optional
Description: the whole distributed web infrastructure of a site
 One program and one file: DNS, load balancer, web and application servers,
 PostgreSQL with failover, and what keeps the machines agreed.
END
}

# Servers run under accounts of their own; state is never removed with the program, and no server is ended by it.
scripts_of_package() {
    cat >"$root/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
for account in dolmen dolmen-app dolmen-db; do
    if ! grep -q "^$account:" /etc/passwd; then
        /usr/sbin/useradd --system --user-group --no-create-home --home-dir /nonexistent \
            --shell /usr/sbin/nologin "$account"
    fi
done
mkdir -p /var/lib/dolmen
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
END
    cat >"$root/DEBIAN/prerm" <<'END'
#!/bin/sh
set -e
# An upgrade leaves everything running; see dolmen upgrade.
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl stop 'dolmen@*.service'
    echo "dolmen: the agent is stopped; servers that run go on until this machine is restarted"
fi
END
    chmod 755 "$root/DEBIAN/postinst" "$root/DEBIAN/prerm"
}

fail() { echo "package: $*" >&2; exit 1; }

main
