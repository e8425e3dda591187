#!/bin/sh
# Runs once, when the database is made. The owner is POSTGRES_USER; this is the role of workers, which owns nothing:
# the migrations grant it what it may do.
set -eu
umask 077
password=$(cat "$MERCURIA_APPLICATION_PASSWORD_FILE")
case $password in
    '' | *[!0-9A-Za-z]*) echo "$MERCURIA_APPLICATION_PASSWORD_FILE must hold letters and digits only." >&2; exit 1 ;;
esac
psql --no-psqlrc --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<END
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
CREATE ROLE mercuria_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD '$password';
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT CONNECT ON DATABASE "$POSTGRES_DB" TO mercuria_app;
END
