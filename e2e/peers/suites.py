"""The suites of real clients and what each needs on this machine.

The suites themselves are not ours: a folder with `peers.py` (`EXEAT_PEERS`, or `shared/peers` beside the checkout)
names and runs them. This module finds that folder, prepares what its own setup cannot, and says of each suite why it
cannot run here; it never decides whether a suite passed.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lib.postgres import binaries
from lib.run import HarnessError, say, unprivileged_user

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# They are built with the headers of the server's own minor version, which Debian has for its own server only.
OWN_SERVER_ONLY = ("regress", "isolation", "libpq_pipeline")
OWN_SERVER_MAJOR = 15
# The widest coverage a second: the protocol's own test program, the command-line tools, one driver of each family.
QUICK = ("libpq_pipeline", "psql_smoke", "node_smoke", "jdbc", "go", "perl_dbd_pg", "php_pgsql", "ruby_pg", "odbc")


@dataclass(frozen=True)
class Need:
    """What must be here for a suite, and the Debian package it comes with."""

    what: str
    package: str

    def missing(self):
        return not (os.path.exists(self.what) if self.what.startswith("/") else shutil.which(self.what))


PQ_HEADERS = Need("/usr/include/postgresql/libpq-fe.h", "libpq-dev")
COMPILER = Need("gcc", "gcc")
NEEDS = {
    "regress": [COMPILER, PQ_HEADERS],
    "isolation": [COMPILER, PQ_HEADERS],
    "libpq_pipeline": [COMPILER, PQ_HEADERS],
    "jdbc": [Need("java", "default-jdk-headless"), Need("/usr/share/java/postgresql.jar", "libpostgresql-jdbc-java")],
    "node_smoke": [Need("node", "nodejs"), Need("npm", "npm")],
    "go": [
        Need("go", "golang-go"),
        Need("/usr/share/gocode/src/github.com/jackc/pgx", "golang-github-jackc-pgx-v4-dev"),
        Need("/usr/share/gocode/src/github.com/lib/pq", "golang-github-lib-pq-dev"),
    ],
    "rust": [Need("cargo", "cargo")],
    "perl_dbd_pg": [Need("/usr/share/doc/libdbd-pg-perl", "libdbd-pg-perl")],
    "php_pgsql": [Need("php", "php-cli"), Need("/usr/share/doc/php-pgsql", "php-pgsql")],
    "ruby_pg": [Need("ruby", "ruby"), Need("/usr/share/doc/ruby-pg", "ruby-pg")],
    "odbc": [
        Need("isql", "unixodbc"), Need("odbcinst", "odbcinst"), Need("/usr/share/doc/odbc-postgresql", "odbc-postgresql"),
    ],
}


def folder():
    """The folder with `peers.py`, or None where there is none: it does not come with the repository."""
    given = os.environ.get("EXEAT_PEERS")
    place = Path(given) if given else REPOSITORY.parent / "shared" / "peers"
    if (place / "peers.py").exists():
        return place.resolve()
    if given:
        raise HarnessError(f'EXEAT_PEERS "{given}" holds no peers.py; name the folder with the clients\' suites')
    return None


def module(place):
    """`peers.py` as a module: its list of suites and its setup."""
    spec = importlib.util.spec_from_file_location("peers", place / "peers.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def chosen(peers, names, quick, major):
    """The suites to run, in the peers' own order."""
    unknown = sorted(set(names) - set(peers.SUITES))
    if unknown:
        raise HarnessError(f'there is no suite "{unknown[0]}"; there are {", ".join(peers.SUITES)}')
    wanted = names or (QUICK if quick else list(peers.SUITES))
    return [name for name in peers.SUITES if name in wanted and (major == OWN_SERVER_MAJOR or name not in OWN_SERVER_ONLY)]


def runnable(names):
    """(the suites that can run here, the packages missing for the others by suite)."""
    absent = {name: [need.package for need in NEEDS.get(name, []) if need.missing()] for name in names}
    return [name for name in names if not absent[name]], {name: lacking for name, lacking in absent.items() if lacking}


def prepare(place, peers, work, names, major):
    """Fetches and builds what these suites need and `work` does not have yet."""
    work.mkdir(parents=True, exist_ok=True)
    # The server reads and writes here, as whoever it runs as.
    work.chmod(0o755)
    closed = [step for step in work.parents if unprivileged_user() and not step.stat().st_mode & 0o001]
    if closed and "regress" in names:
        raise HarnessError(f'the server\'s user does not get through "{closed[0]}"; give --work a folder that it can reach')
    if major == OWN_SERVER_MAJOR and set(names) & set(OWN_SERVER_ONLY):
        _server_headers(work)
    quick = set(names) <= set(QUICK)
    if not quick:
        _set_up(place, work)
    elif "node_smoke" in names and not (work / "npm/node_modules").exists():
        (work / "npm").mkdir(exist_ok=True)
        (work / "npm/package.json").write_text('{"private":true}')
        _call(["npm", "i", "--no-audit", "--no-fund", "--ignore-scripts", *peers.NPM], work / "npm", "npm")


def _set_up(place, work):
    """The peers' own setup, once for each version of it: it asks every registry again."""
    stamp = work / "prepared"
    version = (place / "peers.py").read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == version:
        return
    _python_for_agents(work)
    _call([sys.executable, place / "peers.py", "setup", "--work", work], work, "setup")
    stamp.write_text(version, encoding="utf-8")


def _call(command, cwd, what):
    say(f"{what}: {' '.join(str(part) for part in command[:4])} …")
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HarnessError(f"{what} failed with status {done.returncode}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


def _server_headers(work):
    """The headers of exactly the server that is installed: those of a newer minor make a module that crashes it."""
    unpacked = work / "src/server-dev"
    config = unpacked / f"usr/include/postgresql/{OWN_SERVER_MAJOR}/server/pg_config.h"
    server = _call([binaries(OWN_SERVER_MAJOR) / "postgres", "--version"], "/", "version")
    minor = re.search(rf"\b{OWN_SERVER_MAJOR}\.\d+", server)
    if minor is None:
        raise HarnessError(f'the server\'s version is not understood: "{server.strip()}"')
    if config.exists() and f'#define PG_VERSION "{minor[0]}' in config.read_text():
        return
    if unpacked.exists():
        # What was built from other headers goes with them.
        shutil.rmtree(unpacked)
        shutil.rmtree(work / "dlib", ignore_errors=True)
    package = f"postgresql-{OWN_SERVER_MAJOR}"
    version = _call(["dpkg-query", "-W", "-f", "${Version}", package], "/", "version")
    (work / "src").mkdir(exist_ok=True)
    for old in (work / "src").glob("postgresql-server-dev-*.deb"):
        old.unlink()
    _call(["apt-get", "-q", "download", f"postgresql-server-dev-{OWN_SERVER_MAJOR}={version}"], work / "src", "headers")
    (archive,) = (work / "src").glob("postgresql-server-dev-*.deb")
    _call(["dpkg", "-x", archive, unpacked], work, "headers")


def _python_for_agents(work):
    """The agents' tools want Python 3.12, and a launcher on PATH is not always one that runs."""
    if (work / "venv12/bin/python").exists():
        return
    installed = sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python"))
    for candidate in [shutil.which("python3.12"), *installed, sys.executable]:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            _call([candidate, "-m", "venv", work / "venv12"], work, "venv12")
            return
