"""Starts the real `exeat serve` with a configuration written for the run, and waits until it is ready."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from . import tokens
from .dsn import Dsn, psql
from .run import HarnessError, free_port, say, wait_until
from .yaml_text import dump

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHOP_SQL = REPOSITORY / "crates/exeat/src/demo/shop.sql"
SHOP_POLICY = REPOSITORY / "crates/exeat/src/demo/policy.yaml"
TARGET = "shop"
PASS_THROUGH = "version: 1\nrules:\n  - id: everything\n    allow: [all]\n"
READY_SECONDS_MAX = 60


def build_environment():
    """The environment for cargo: without protoc, which the grammar's build script would use instead of its own files."""
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    kept = [folder for folder in folders if folder in ("/usr/bin", "/bin") or not (Path(folder) / "protoc").exists()]
    return {**os.environ, "PATH": os.pathsep.join(kept)}


def binary(release=False):
    """$EXEAT_BIN, or what cargo builds from this checkout (quick when nothing changed)."""
    given = os.environ.get("EXEAT_BIN")
    if given:
        if not os.access(given, os.X_OK):
            raise HarnessError(f'EXEAT_BIN "{given}" is not a program; unset it to build from this checkout')
        return Path(given).resolve()
    say("building exeat with cargo")
    command = ["cargo", "build", "--quiet", "--locked", "-p", "exeat", *(["--release"] if release else [])]
    if subprocess.run(command, cwd=REPOSITORY, env=build_environment(), stdout=2, check=False).returncode != 0:
        raise HarnessError("cargo build failed; its messages stand above")
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
    return (REPOSITORY / target / ("release" if release else "debug") / "exeat").resolve()


class Trust:
    """An issuer of our own: its key and the JWKS file the gateway trusts it by."""

    def __init__(self, run, name="token"):
        self.key = tokens.new_key(run.path(f"{name}.key"))
        self.jwks = tokens.write_jwks(run.path(f"{name}.jwks.json"), self.key)

    def entry(self):
        return {"issuer": tokens.ISSUER, "audience": tokens.AUDIENCE, "groups": "groups", "jwks_file": str(self.jwks)}

    def token(self, sub, groups=(), **options):
        return tokens.mint(self.key, sub, groups, **options)


class Gateway:
    """One `exeat serve`. `config` is exeat.yaml as a dict: change it before `start` to test what you like."""

    def __init__(self, run, name="gateway", port=None):
        self.run = run
        self.name = name
        self.port = port or free_port()
        self.console_port = free_port()
        self.log = run.path(f"{name}.log")
        self.folder = run.path(name)
        self.folder.mkdir(mode=0o700)
        self.policy_file = self.folder / "policy.yaml"
        self.config_file = self.folder / "exeat.yaml"
        self.data_dir = self.folder / "data"
        self.tls = None
        self.process = None
        # A test that alters the record says so.
        self.verifies = True
        self.environment = {}
        self.config = {
            "name": f"e2e-{name}",
            "data_dir": "./data",
            "keys": "./keys",
            "listen": {
                "postgres": {"address": f"127.0.0.1:{self.port}", "tls": "off", "default_target": TARGET},
                "console": {"address": f"127.0.0.1:{self.console_port}"},
            },
            "identity": [],
            "targets": {},
            "policy": {"path": "policy.yaml"},
        }

    def trust(self, entry):
        self.config["identity"].append(entry)
        return self

    def listen_tls(self, authority):
        """TLS with a certificate of `authority`, copied to files that a test may replace."""
        pair = authority.issue(f"{self.name}-listener")
        for source, name in ((pair.cert, "server.crt"), (pair.key, "server.key")):
            shutil.copy(source, self.folder / name)
        self.config["listen"]["postgres"]["tls"] = {"cert": "server.crt", "key": "server.key"}
        self.tls = authority
        return self

    def target(self, server, database, logins, name=TARGET, **options):
        """`logins`: as in the configuration, but with the password itself, which goes to a file of its own."""
        entries = []
        for number, login in enumerate(logins):
            path = self.run.secret_file(f"{self.name}.{name}.{number}.pw", login["password"])
            entries.append({**login, "password": {"file": str(path)}})
        upstream = {"host": "localhost", "port": server.port, "database": database, "tls": "verify-full", "ca": str(server.ca)}
        if server.ca is None:
            upstream.update(host="127.0.0.1", tls="off")
            del upstream["ca"]
        self.config["targets"][name] = {"postgres": {**upstream, "logins": entries, **options}}
        return self

    def policy(self, text):
        """Replaces the file whole: the gateway must never read half a policy."""
        temporary = self.policy_file.with_suffix(".new")
        temporary.write_text(text)
        temporary.replace(self.policy_file)
        return self

    def write_config(self):
        self.config_file.write_text(dump(self.config))

    def launch(self, log=True, level="info"):
        """Starts the program without waiting for it."""
        self.write_config()
        environment = {**os.environ, "EXEAT_LOG": level, **self.environment}
        self.process = self.run.spawn(
            self.name, [binary(), "serve", "--config", self.config_file], self.log if log else None,
            env=environment, cwd=self.folder,
        )
        return self

    def start(self, log=True, level="info"):
        self.launch(log, level)
        return self.wait_ready()

    def wait_ready(self):
        wait_until(
            f"{self.name} is ready on port {self.console_port}", lambda: self.ready()[0] == 200,
            seconds=READY_SECONDS_MAX, alive=self.process,
        )
        return self

    def console(self, path):
        """(status, body) of a GET on the console listener."""
        try:
            with urllib.request.urlopen(f"{self.console_url()}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def ask(self, method, path, body=None, token=None, headers=None):
        """(status, what the JSON says) of a request to the console listener."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.console_url()}{path}", data=data, headers=headers or {}, method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        return status, json.loads(text) if text.startswith(b"{") else text

    def handle(self, token, **wish):
        """A new handle, as the console gives it."""
        status, answer = self.ask("POST", "/v1/handles", wish, token)
        assert status == 201, (status, answer)
        return answer

    def ready(self):
        return self.console("/readyz")

    def readiness(self):
        return json.loads(self.ready()[1])

    def console_url(self):
        return f"http://127.0.0.1:{self.console_port}"

    def said(self, token, *arguments):
        """(exit status, what was printed, what was said beside it) of a command that asks the console."""
        environment = {**os.environ, "EXEAT_URL": self.console_url(), "EXEAT_TOKEN": token}
        done = subprocess.run(
            [binary(), *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def command(self, token, *arguments):
        """The same with what was printed as JSON."""
        status, printed, said = self.said(token, *arguments, "--json")
        return status, json.loads(printed) if printed else None, said

    def dsn(self, token, dbname=TARGET, user="agent"):
        if self.tls is None:
            return Dsn("127.0.0.1", self.port, user, token, dbname)
        return Dsn("localhost", self.port, user, token, dbname, "verify-full", str(self.tls.cert))

    def log_text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def stop(self):
        """Ends the gateway, which must end well and leave its record whole; one that a test has ended is only tidied away."""
        is_running = self.process.poll() is None
        status = self.process.stop()
        self.run.forget(self.process)
        if is_running and status != 0:
            raise HarnessError(f"{self.name} ended with status {status}\n{self.process.tail()}")
        if self.verifies and status == 0:
            self._verify()

    def _verify(self):
        """Whatever a test did, what it left on record is whole and signed."""
        # A test may have put it elsewhere.
        folder = self.config_file.parent / self.config["data_dir"]
        done = subprocess.run([binary(), "audit", "verify", folder], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise HarnessError(f"the record of {self.name} is not what was signed: {done.stdout}{done.stderr}")


class Shop:
    """The demo's shop in a database of `server`, with a random password for each of its roles."""

    def __init__(self, server, database="shop", sample=True):
        self.server = server
        self.database = database
        self.admin = server.create_database(database)
        if sample:
            psql(self.admin, file=SHOP_SQL)
        else:
            psql(self.admin, "CREATE ROLE shop_reader LOGIN; CREATE ROLE shop_dpo LOGIN")
        # What an administrator makes later is readable too: suites create their tables through ADMIN_DSN.
        psql(
            self.admin,
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO shop_reader;"
            "ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO shop_reader",
        )
        self.reader = server.dsn("shop_reader", server.set_password("shop_reader"), database)
        self.officer = server.dsn("shop_dpo", server.set_password("shop_dpo"), database)

    def logins(self):
        return [
            {"groups": ["dpo"], "user": "shop_dpo", "password": self.officer.password},
            {"user": "shop_reader", "password": self.reader.password},
        ]
