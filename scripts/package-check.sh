#!/usr/bin/env bash
# Checks the .deb of scripts/package.sh: lintian, and its installation, use and purge in a clean Debian tree.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat <<'TEXT'
usage: scripts/package-check.sh [--required]

  --required    fail where the tree cannot be made (it needs root and debootstrap), instead of saying so

Environment:
  PROGRAMS_DIR  package the programs in it instead of building static ones, which saves minutes

The tree is kept in target/debootstrap.
TEXT
}

required=
while (($# > 0)); do
  case $1 in
    --required) required=yes && shift ;;
    --help | -h) usage && exit ;;
    *) usage >&2 && exit 2 ;;
  esac
done

# cannot WHY: ends the check in one line.
cannot() {
  [[ -z $required ]] || die "cannot check the package: $*"
  say "not checked: $*"
  exit 0
}

((EUID == 0)) || cannot "only root can make a Debian tree"
(need debootstrap debootstrap) || cannot "there is no debootstrap"
need lintian lintian
need man man-db
# shellcheck source=/dev/null
. /etc/os-release
base=target/debootstrap/${VERSION_CODENAME:?}.tar
tree=$(mktemp --directory)

remove_tree() {
  mountpoint --quiet "$tree/proc" && umount "$tree/proc"
  rm -rf --one-file-system "$tree"
}
trap remove_tree EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# make_base: a Debian with systemd and nothing that we do not need, once.
make_base() {
  local mirror
  mkdir --parents "${base%/*}"
  # Not every system has each of these files.
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
    sed --quiet --regexp-extended 's/^(URIs:|deb( \[[^]]*\])?) +([^ ]+).*/\3/p' | head --lines=1) || true
  say "making a Debian tree (once; the log is ${base%.tar}.log)"
  debootstrap --variant=minbase --include=systemd "$VERSION_CODENAME" "$tree" ${mirror:+"$mirror"} \
    >"${base%.tar}.log" 2>&1 || cannot "debootstrap failed: $(tail --lines=1 "${base%.tar}.log")"
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/*
  tar --create --file "$base.part" --directory "$tree" --numeric-owner .
  mv "$base.part" "$base"
}

inside() { chroot "$tree" /usr/bin/env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# everything: all paths in the tree that outlive a reboot, and the users, without what dpkg itself keeps of its past.
everything() {
  (cd "$tree" && find . \( -path ./proc -o -path ./run \) -prune -o -printf '%y %m %U %G %p %l\n' |
    grep --invert-match --extended-regexp ' \./var/(lib/dpkg|log/dpkg\.log|cache)|\./etc/(passwd|group|shadow|gshadow)-|\./etc/\.pwd\.lock' |
    sort)
  cat "$tree/etc/passwd" "$tree/etc/group" "$tree/etc/shadow" "$tree/etc/gshadow"
}

# expect WHAT COMMAND…: one check.
expect() {
  local what=$1
  shift
  "$@" >"$tree/check.log" 2>&1 || { cat "$tree/check.log" >&2 && die "failed: $what"; }
  rm "$tree/check.log"
  say "ok: $what"
}

# man warns on standard error, and groff does not fail.
page_is_clean() { [[ -z $(MANROFFSEQ='' MANWIDTH=80 man --warnings --local-file "$1" 2>&1 >/dev/null) ]]; }

check_installed() {
  local program deb_version
  # shellcheck disable=SC2016 # dpkg-query expands it
  deb_version=$(inside dpkg-query --show --showformat '${Version}' event-pipeline)
  for program in producer consumer live simulate; do
    expect "$program --version is that of the package" \
      [ "$(inside "$program" --version)" = "$program $deb_version" ]
    expect "man page of $program" page_is_clean "$tree/usr/share/man/man1/$program.1.gz"
    expect "completions of $program for bash" inside bash -c \
      ". /usr/share/bash-completion/completions/$program && complete -p $program"
    expect "completions of $program for zsh and fish" test -s "$tree/usr/share/zsh/vendor-completions/_$program" \
      -a -s "$tree/usr/share/fish/vendor_completions.d/$program.fish"
  done
  expect "the texts of the licences" grep --quiet 'Permission is hereby granted' \
    "$tree/usr/share/doc/event-pipeline/THIRD-PARTY.txt"
  expect "units" inside systemd-analyze verify /lib/systemd/system/event-{producer,consumer}.service
  expect "the services' user" inside getent passwd event-pipeline
  expect "only root can read the settings" [ "$(stat --format %a:%U "$tree/etc/event-pipeline.env")" = 600:root ]
  for program in producer consumer; do
    # shellcheck disable=SC2016 # expanded by the inner shell
    expect "$program accepts the settings" inside sh -c \
      'set -a && . /etc/event-pipeline.env && exec setpriv --reuid event-pipeline --regid event-pipeline --clear-groups "$0" --check-config' "$program"
  done
}

# Events are data.
check_kept_log() {
  cp "${packages[0]}" "$tree/package.deb"
  expect "dpkg --install once more" inside dpkg --install /package.deb
  expect "a log" inside install -D --owner event-pipeline /etc/os-release /var/log/event-pipeline/events.log
  expect "dpkg --purge where there is a log" inside dpkg --purge event-pipeline
  expect "the log is still there" test -s "$tree/var/log/event-pipeline/events.log"
  expect "its user, too" inside getent passwd event-pipeline
}

# Static programs run on any Linux, so they are tried where there is nothing else.
check_archive() {
  local empty=$tree/empty program
  mkdir "$empty"
  tar --extract --gzip --file "$1" --directory "$empty" --strip-components=1
  if [[ $(ldd "$empty/bin/producer" 2>/dev/null) == *'=>'* ]]; then
    say "not checked: the programs of the archive, because they are not static"
    return
  fi
  for program in producer consumer live simulate; do
    expect "$program of the archive runs in an empty tree" chroot "$empty" "/bin/$program" --version
  done
  rm -rf "$empty"
}

[[ -f $base ]] || make_base
say "packaging ($SECONDS s)"
mapfile -t packages < <(scripts/package.sh)
((${#packages[@]} == 2)) || die "scripts/package.sh failed"
ls -l --human-readable "${packages[@]}" >&2
expect "lintian finds no error" lintian --allow-root --fail-on error "${packages[0]}"
rm -rf "$tree" && mkdir "$tree"
tar --extract --file "$base" --directory "$tree" --numeric-owner
# The temporary directory that it was made in was ours alone.
chmod 755 "$tree"
mount --types proc proc "$tree/proc" 2>/dev/null || say "no /proc in the tree"
before=$(everything)
cp "${packages[0]}" "$tree/package.deb"
expect "dpkg --install" inside dpkg --install /package.deb
check_installed
# As if an administrator had used it.
inside systemctl enable event-producer.service event-consumer.service 2>/dev/null
expect "dpkg --purge" inside dpkg --purge event-pipeline
rm "$tree/package.deb"
diff <(echo "$before") <(everything) >&2 || die "failed: the purge has left or taken something"
say "ok: nothing is left after the purge"
check_kept_log
check_archive "${packages[1]}"
say "all checks passed ($SECONDS s)"
