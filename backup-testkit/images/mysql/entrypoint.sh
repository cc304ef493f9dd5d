#!/bin/sh
# What the official images of MySQL and MariaDB promise: MYSQL_* or MARIADB_* of ROOT_PASSWORD, ROOT_HOST, DATABASE, USER, PASSWORD (each
# also with _FILE), ALLOW_EMPTY_PASSWORD; arguments that start with "-" go to the server. Not: docker-entrypoint-initdb.d.
set -eu
server=$(command -v mariadbd || command -v mysqld)
case "${1:-}" in '' | -*) set -- "${server##*/}" "$@" ;; esac
[ "$1" = "${server##*/}" ] || exec "$@"
for name in ROOT_PASSWORD ROOT_HOST DATABASE USER PASSWORD; do
  eval "$name=\${MARIADB_$name:-\${MYSQL_$name:-}} file=\${MARIADB_${name}_FILE:-\${MYSQL_${name}_FILE:-}}"
  [ -z "$file" ] || eval "$name=\$(cat \"\$file\")"
done
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/[\\\\']/\\\\&/g")"; }
sql() { printf '%s;\n' "$1"; } # not echo: dash's eats backslashes
data=/var/lib/mysql
mkdir -p $data /run/mysqld
chown mysql:mysql $data /run/mysqld
if [ ! -d $data/mysql ]; then
  [ -n "$ROOT_PASSWORD${MYSQL_ALLOW_EMPTY_PASSWORD:-}${MARIADB_ALLOW_EMPTY_ROOT_PASSWORD:-}" ] || {
    echo 'a root password is needed (MYSQL_ROOT_PASSWORD or MARIADB_ROOT_PASSWORD)' >&2
    exit 1
  }
  cp -a /var/lib/mysql.init/. $data/
  host=$(quoted "${ROOT_HOST:-%}")
  {
    sql "CREATE USER IF NOT EXISTS 'root'@$host IDENTIFIED BY $(quoted "$ROOT_PASSWORD")"
    sql "GRANT ALL ON *.* TO 'root'@$host WITH GRANT OPTION"
    sql "ALTER USER 'root'@'localhost' IDENTIFIED BY $(quoted "$ROOT_PASSWORD")"
    [ -z "$DATABASE" ] || sql "CREATE DATABASE IF NOT EXISTS \`$DATABASE\`"
    [ -z "$USER" ] || sql "CREATE USER $(quoted "$USER")@'%' IDENTIFIED BY $(quoted "$PASSWORD")"
    [ -z "$USER" ] || [ -z "$DATABASE" ] || sql "GRANT ALL ON \`$DATABASE\`.* TO $(quoted "$USER")@'%'"
  } >/run/mysqld/init.sql
  chown mysql:mysql /run/mysqld/init.sql
  chmod 600 /run/mysqld/init.sql
  set -- "$@" --init-file=/run/mysqld/init.sql # before the first connection is served: no temporary server
fi
exec "$@" --user=mysql
