#!/usr/bin/env bash
# Makes the packages: a .deb, and a .tar.gz for other systems, both with the static programs of scripts/static.sh.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat <<'TEXT'
usage: scripts/package.sh

Writes the .deb and the .tar.gz into target/package, and prints their paths.

Environment:
  MAINTAINER    who maintains the package: Name <address>
  PROGRAMS_DIR  package the programs in it, instead of building static ones
TEXT
}

case ${1:-} in
  '') ;;
  --help | -h) usage && exit ;;
  *) usage >&2 && exit 2 ;;
esac

programs=(producer consumer live simulate)
files=scripts/debian
out=target/package
version=$(sed --quiet 's/^version = "\(.*\)"/\1/p' Cargo.toml | head --lines=1)
maintainer=${MAINTAINER:-event-pipeline maintainers <maintainers@event-pipeline.example>}
# The same sources make the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

need dpkg-deb dpkg
need python3 python3
command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"

# is_dynamic FILE: true if it needs libraries of the system.
is_dynamic() { [[ $(ldd "$1" 2>/dev/null) == *'=>'* ]]; }

# programs_into DIR: the programs, static ones unless others were given.
programs_into() {
  local paths=()
  if [[ -n ${PROGRAMS_DIR:-} ]]; then
    paths=("${programs[@]/#/$PROGRAMS_DIR/}")
  else
    mapfile -t paths < <(scripts/static.sh "${programs[@]}")
    ((${#paths[@]} == ${#programs[@]})) || die "scripts/static.sh did not build the programs"
  fi
  mkdir --parents "$1"
  install --mode=755 "${paths[@]}" "$1" || die "cannot copy all of these: ${paths[*]}"
  # A debug build: what debuggers need is most of it.
  ! is_dynamic "$1/producer" || strip --strip-debug "$1"/*
}

# documents_into DIR: what one reads, with the licences of everything that is in the programs.
documents_into() {
  mkdir --parents "$1"
  cp --recursive README.md CHANGELOG.md docs "$1"
  python3 scripts/licences.py >"$1/THIRD-PARTY.txt" || die "scripts/licences.py failed"
}

# units_into DIR: the units of docs/systemd for a user that exists, which may own a log that others read. Without
# DynamicUser, its protections have to be listed.
units_into() {
  mkdir --parents "$1"
  for unit in event-producer event-consumer; do
    sed 's|^ExecStart=/usr/local/bin/|ExecStart=/usr/bin/|
      s|^DynamicUser=yes|User=event-pipeline\nNoNewPrivileges=yes\nPrivateTmp=yes\nProtectHome=read-only\nProtectSystem=strict\nRemoveIPC=yes\nRestrictSUIDSGID=yes|' \
      "docs/systemd/$unit.service" >"$1/$unit.service"
    grep --quiet '^User=event-pipeline$' "$1/$unit.service" || die "docs/systemd/$unit.service has changed"
  done
}

# control_into DIR SIZE: what dpkg reads. SIZE is in KiB.
control_into() {
  local depends='systemd | systemd-standalone-sysusers'
  mkdir --parents "$1"
  ! is_dynamic "$1/../usr/bin/producer" || depends="libc6, libgcc-s1, $depends"
  cat >"$1/control" <<TEXT
Package: event-pipeline
Version: $version
Architecture: $(dpkg --print-architecture)
Maintainer: $maintainer
Installed-Size: $2
Depends: $depends
Recommends: ca-certificates
Section: net
Priority: optional
Description: HTTP events to Kafka and to a log, without loss
 The producer accepts events over HTTP and answers 200 once Kafka has
 acknowledged them. The consumer writes every event of the topic exactly once
 to a log, to Parquet files or into PostgreSQL. A live page shows both while
 they run, and a simulator sends load and audits the log.
TEXT
  echo /etc/event-pipeline.env >"$1/conffiles"
  install --mode=755 "$files/postinst" "$files/prerm" "$files/postrm" "$1"
}

changelog() {
  cat <<TEXT
event-pipeline ($version) unstable; urgency=medium

  * CHANGELOG.md beside this file has the changes.

 -- $maintainer  $(date --utc --date="@$SOURCE_DATE_EPOCH" --rfc-email)
TEXT
}

# make_deb TREE: the programs and the manual are in TREE/usr already.
make_deb() {
  local tree=$1 doc=$1/usr/share/doc/event-pipeline options=()
  # Not worth the time for a test.
  [[ -z ${PROGRAMS_DIR:-} ]] || options=(-Zgzip -z1)
  documents_into "$doc"
  install --mode=644 "$files/copyright" "$doc/copyright"
  changelog | gzip --best --no-name >"$doc/changelog.gz"
  gzip --best --no-name "$tree"/usr/share/man/man1/*.1
  units_into "$tree/lib/systemd/system"
  install -D --mode=644 "$files/sysusers.conf" "$tree/usr/lib/sysusers.d/event-pipeline.conf"
  install -D --mode=644 "$files/lintian-overrides" "$tree/usr/share/lintian/overrides/event-pipeline"
  # Users may write passwords into it.
  install -D --mode=600 "$files/event-pipeline.env" "$tree/etc/event-pipeline.env"
  control_into "$tree/DEBIAN" "$(du --summarize --apparent-size "$tree" | cut --fields=1)"
  (cd "$tree" && find usr lib -type f -print0 | sort --zero-terminated | xargs --null md5sum >DEBIAN/md5sums)
  dpkg-deb --root-owner-group "${options[@]}" --build "$tree" "$out" >&2
}

# make_tar TREE NAME: bin and share as they belong below /usr/local, units, settings and documents.
make_tar() {
  local tree=$1/$2
  mkdir --parents "$tree/systemd"
  cp --recursive "$1/usr/bin" "$1/usr/share" "$tree"
  cp docs/systemd/*.service "$tree/systemd"
  cp "$files/event-pipeline.env" LICENSE "$tree"
  documents_into "$tree"
  tar --create --gzip --file "$out/$2.tar.gz" --directory "$1" --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" "$2"
}

umask 022
rm -rf "$out"
work=$out/work
programs_into "$work/usr/bin"
cargo run --locked --quiet --all-features --example manual "$work/usr"
make_tar "$work" "event-pipeline-$version-$(rustc -vV | sed --quiet 's/^host: //p')"
mkdir "$work/deb"
mv "$work/usr" "$work/deb/usr"
make_deb "$work/deb"
rm -rf "$work"
realpath "$out"/*.deb "$out"/*.tar.gz
