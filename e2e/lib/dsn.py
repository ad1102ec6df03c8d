"""Where to connect and as whom: one value, printed as a libpq key=value string or given to psql as environment."""

import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace

from .run import HarnessError

PSQL_SECONDS_MAX = 60


def _quoted(value):
    """libpq's quoting of one value."""
    text = str(value)
    if text and all(character.isalnum() or character in "._-/:+@%=" for character in text):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class Dsn:
    host: str
    port: int
    user: str
    password: str | None
    dbname: str
    sslmode: str = "disable"
    sslrootcert: str | None = None

    def text(self):
        parts = [
            ("host", self.host), ("port", self.port), ("user", self.user), ("password", self.password),
            ("dbname", self.dbname), ("sslmode", self.sslmode),
        ]
        if self.sslrootcert:
            parts.append(("sslrootcert", self.sslrootcert))
        return " ".join(f"{name}={_quoted(value)}" for name, value in parts if value is not None)

    def shell_line(self, name):
        return f"{name}={shlex.quote(self.text())}"

    def environment(self):
        """For psql and pgbench: the password never stands on a command line."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        clean.update(
            PGHOST=self.host, PGPORT=str(self.port), PGUSER=self.user, PGPASSWORD=self.password,
            PGDATABASE=self.dbname, PGSSLMODE=self.sslmode, PGCONNECT_TIMEOUT="15", PGAPPNAME="exeat-e2e",
        )
        if self.sslrootcert:
            clean["PGSSLROOTCERT"] = str(self.sslrootcert)
        return clean

    def with_(self, **changes):
        return replace(self, **changes)


def psql_command():
    found = shutil.which("psql")
    if found is None:
        raise HarnessError("psql is not on PATH; install postgresql-client, or run `make deps`")
    return found


def psql(dsn, sql=None, file=None, options=(), check=True):
    """Runs psql without a startup file; returns the finished process, or raises with psql's own words."""
    command = [psql_command(), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *options]
    if sql is not None:
        command += ["-c", sql]
    if file is not None:
        command += ["-f", str(file)]
    done = subprocess.run(
        command, env=dsn.environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        timeout=PSQL_SECONDS_MAX,
    )
    if check and done.returncode != 0:
        raise HarnessError(f"psql on {dsn.host}:{dsn.port} as {dsn.user} failed: {done.stderr.strip()}")
    return done
