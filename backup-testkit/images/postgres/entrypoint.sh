#!/bin/sh
# What the official image promises: POSTGRES_PASSWORD[_FILE], POSTGRES_USER[_FILE], POSTGRES_DB[_FILE], POSTGRES_HOST_AUTH_METHOD,
# POSTGRES_INITDB_ARGS, PGDATA; arguments that start with "-" go to postgres. Not: docker-entrypoint-initdb.d.
set -eu
case "${1:-}" in '' | -*) set -- postgres "$@" ;; esac
[ "$1" = postgres ] || exec "$@"
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
for name in PASSWORD USER DB; do
  eval "file=\${POSTGRES_${name}_FILE:-}"
  [ -z "$file" ] || eval "POSTGRES_$name=\$(cat \"\$file\")"
done
user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
mkdir -p "$PGDATA" /run/postgresql
chown postgres:postgres "$PGDATA" /run/postgresql
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  [ -n "${POSTGRES_PASSWORD:-}" ] || [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ] || {
    echo 'POSTGRES_PASSWORD or POSTGRES_HOST_AUTH_METHOD=trust is needed' >&2
    exit 1
  }
  (umask 077 && printf '%s\n' "${POSTGRES_PASSWORD:-}" >/run/postgresql/password)
  chown postgres: /run/postgresql/password
  # shellcheck disable=SC2086 # several arguments in one variable, as in the official image
  # Before 14 it would keep the password as MD5, which the line below does not take.
  as initdb --no-sync -E UTF8 --locale=C.UTF-8 --auth-host=scram-sha-256 -U "$user" ${POSTGRES_PASSWORD:+--pwfile=/run/postgresql/password} ${POSTGRES_INITDB_ARGS:-}
  rm /run/postgresql/password
  echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  [ "$database" = postgres ] || echo "CREATE DATABASE \"$database\"" | as postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"
