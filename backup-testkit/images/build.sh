#!/bin/bash
# build.sh IMAGE...: container images of real servers from Debian's packages, for machines that reach no image registry.
# `cargo xtask test` calls it; by hand: backup-testkit/images/build.sh postgres:17
#
# The slow part is kept as backup-test/rootfs-NAME (FORCE=1 makes it again); the Dockerfiles are the quick part.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
export DOCKER_BUILDKIT=0 # the classic builder: there without buildx, and in Docker 20.10

missing() { [ -n "${FORCE:-}" ] || [ -z "$(docker images -q "$1")" ]; }

# rootfs NAME SUITE USER PACKAGES [LEFT OUT]: packages are unpacked, not configured, so no maintainer script starts a server or
# makes a cluster; what a server needs of what those scripts do is done here. User and group get the number 999.
rootfs() {
  missing "backup-test/rootfs-$1" || return 0
  echo "building backup-test/rootfs-$1 from Debian $2" >&2
  # shellcheck disable=SC2046,SC2016 # the words are packages; the hooks expand their own $1
  USER_NAME=$3 DROP=${5:-} mmdebstrap --quiet --variant=extract --include='?essential' $(printf -- '--include=%s ' $4) \
    --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
    --setup-hook='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done' \
    --extract-hook='set -eu; cd "$1"
      cp usr/share/base-passwd/passwd.master etc/passwd; cp usr/share/base-passwd/group.master etc/group
      echo "$USER_NAME:x:999:999::/nonexistent:/bin/sh" >> etc/passwd; echo "$USER_NAME:x:999:" >> etc/group
      ln -sf mawk usr/bin/awk; ln -sf which.debianutils usr/bin/which
      chmod 1777 tmp; rm -rf var/run; ln -s /run var/run
      rm -rf usr/share/doc usr/share/man usr/share/info usr/share/locale usr/share/perl usr/lib/*/perl var/cache/apt/archives/*.deb $DROP' \
    --format=tar "$2" - | docker import - "backup-test/rootfs-$1" >/dev/null ||
    { docker rmi "backup-test/rootfs-$1" >/dev/null 2>&1; return 1; } # a cut tar must not pass for an image
}

# image FOLDER TAG [BUILD ARGUMENT]...: a Dockerfile rather than `docker import --change`, which knows no STOPSIGNAL.
image() {
  local folder=$1 tag=$2 arguments=()
  shift 2
  for argument; do arguments+=(--build-arg "$argument"); done
  docker build -q -t "backup-test/$folder:$tag" -f "$folder/Dockerfile" "${arguments[@]}" . >/dev/null
}

# postgres MAJOR SUITE. Without just-in-time compilation: LLVM is larger than all the rest.
postgres() {
  rootfs "postgres-$1" "$2" postgres "postgresql-$1" \
    "usr/lib/llvm* usr/lib/*/libLLVM* usr/lib/postgresql/$1/lib/bitcode usr/lib/postgresql/$1/lib/llvmjit*"
  image postgres "$1" "MAJOR=$1"
}

# mysql MAJOR SUITE, mariadb MAJOR SUITE. MariaDB from 11 on has no programs called mysql: so that tests do not rely on them.
mysql() {
  rootfs "mysql-$1" "$2" mysql 'mysql-server-core mysql-client-core'
  image mysql "$1" "MAJOR=$1"
}
mariadb() {
  local drop='usr/bin/mysql*'
  [ "${1%%.*}" -ge 11 ] || drop=
  rootfs "mariadb-$1" "$2" mysql 'mariadb-server-core mariadb-client' "$drop"
  image mariadb "$1" "MAJOR=$1"
}

for wanted; do
  case $wanted in
    postgres:13) postgres 13 bullseye ;;
    postgres:15) postgres 15 bookworm ;;
    postgres:17) postgres 17 trixie ;;
    postgres:18) postgres 18 sid ;;
    mysql:9) mysql 9 sid ;;
    mariadb:10.11) mariadb 10.11 bookworm ;;
    mariadb:11.8) mariadb 11.8 trixie ;;
    *) echo "no recipe for $wanted" >&2; exit 2 ;;
  esac
done
