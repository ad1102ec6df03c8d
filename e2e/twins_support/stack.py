"""Two servers that are copies of one data folder, and one gateway in front of both.

Copies, because object numbers, transaction numbers and file names are then the same too: what a client may read of
the catalog does not differ. They listen on one port at two addresses, which are the same length.
"""

import itertools
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lib import wire
from lib.dsn import Dsn, psql
from lib.gateway import SHOP_SQL, Gateway, Trust
from lib.postgres import Server
from lib.run import HarnessError, unprivileged_user
from lib.yaml_text import dump
from redteam_support.corpus import label_name, quoted

from . import schema, twist

ADDRESSES = ("127.0.0.1", "127.0.0.2")
ROLE = "twin_agent"
GROUP = "agents"
ALLOWED = ["read", "insert", "update", "delete", "merge", "copy_in", "ddl", "call"]
STATEMENT_MS_MAX = 250
# A lookup says by design whether a value is there: only for columns that no literal of ours, and no value of the
# statements of others, is found in.
LOOKED_UP = re.compile(r"(^|[._])(email|ssn|phone)$")
PROBES_MAX = 10_000
SETTINGS = {"autovacuum": "off", "jit": "off", "max_parallel_workers_per_gather": "0", "bgwriter_delay": "10s"}
SHOP_SEALED = [
    ("public", "customers", "email"), ("public", "customers", "ssn"), ("public", "customers", "phone"),
    ("public", "customers", "birth_date"), ("public", "payments", "card_number"), ("hr", "salaries", "salary"),
]


@dataclass
class World:
    """One database that exists twice. `labels`: what policy says; `sealed`: also what is computed from it; `owned`: its
    relations belong to the login, so that the server refuses no definition."""

    name: str
    load: str
    labels: dict
    sealed: set
    folder: Path = None
    tables: list = None
    owned: bool = False

    def target(self, twin):
        return f"{self.name}_{'ab'[twin]}"


def shop():
    labels = {column: [f"{table}.{column}"] for table, column in ((f"{s}.{t}", c) for s, t, c in SHOP_SEALED)}
    return World("shop", SHOP_SQL.read_text(encoding="utf-8"), labels, set(SHOP_SEALED), owned=True)


def corpus(folder):
    """The schema of a red-team corpus; labels only from columns that are not computed from others."""
    columns = json.loads((folder / "sensitive.json").read_text(encoding="utf-8"))["columns"]
    labels = {}
    for column in columns:
        if not column.get("derived_from"):
            pattern = ".".join(quoted(column[part]) for part in ("schema", "table", "column"))
            labels.setdefault(label_name(column["class"]), []).append(pattern)
    sealed = {(column["schema"], column["table"], column["column"]) for column in columns}
    return World("redteam", (folder / "schema.sql").read_text(encoding="utf-8"), labels, sealed)


# Of the tables that most of PostgreSQL's regression tests speak of.
REGRESSION_SEALED = [
    *(("public", table, column) for table in ("onek", "onek2", "tenk1", "tenk2") for column in ("hundred", "string4")),
    *(("public", table, "age") for table in ("person", "emp", "student", "stud_emp")),
    *(("public", table, "salary") for table in ("emp", "stud_emp")),
    ("public", "text_tbl", "f1"), ("public", "varchar_tbl", "f1"),
]


def regression(folder):
    """What `test_setup.sql` makes, read by psql; `folder` holds it. Its functions in C are left out."""
    labels = {f"{table}_{column}": [f"{schema}.{table}.{column}"] for schema, table, column in REGRESSION_SEALED}
    return World("regress", (folder / "test_setup.sql").read_text(encoding="utf-8"), labels, set(REGRESSION_SEALED), folder)


class Twin(Server):
    """A server whose data folder is a copy of another's, at another address and the same port."""

    def __init__(self, original, number):
        self.run, self.port, self.password, self.ca = original.run, original.port, original.password, None
        self.address = ADDRESSES[number]
        self._title = f"twin-{'ab'[number]}"
        self._bin = original._bin
        self._log = self.run.path(f"{self._title}.log")
        self._home = self.run.path(self._title)
        shutil.copytree(original._home, self._home)
        with open(self._home / "data/postgresql.conf", "a", encoding="utf-8") as conf:
            conf.write(f"listen_addresses = '{self.address}'\n")
        if unprivileged_user() is not None:
            subprocess.run(["chown", "-R", unprivileged_user(), self._home], check=True)
        self.start()

    def dsn(self, user, password, dbname):
        return Dsn(self.address, self.port, user, password, dbname)


class Stack:
    def __init__(self, run, major, worlds, level):
        self.run, self.worlds = run, worlds
        original = Server(run, major, settings=SETTINGS, auth="trust", title="original")
        for world in worlds:
            self._load(original, world)
        original.stop()
        self.twins = [Twin(original, number) for number in range(len(ADDRESSES))]
        for world in worlds:
            dsns = [twin.admin(world.name) for twin in self.twins]
            world.tables = schema.read(dsns[0], world.sealed)
            for number, dsn in enumerate(dsns):
                twist.twist(run, dsn, world.tables, changed=number == 1)
            twist.prove(*dsns, world.tables)
            for dsn in dsns:
                # Counts of what made the twins come in when they like.
                psql(dsn, "SELECT pg_stat_reset()")
        # Addresses in text and binary, folders, targets: equally long.
        self._alike = [(b"127.0.0.2", b"127.0.0.1"), (b"\x7f\0\0\2", b"\x7f\0\0\1"), (b"twin-b", b"twin-a")]
        self._alike += [(world.target(1).encode(), world.target(0).encode()) for world in worlds]
        self._trust = Trust(run)
        self.gateway = self._gateway(level)

    def _load(self, server, world):
        dsn = server.create_database(world.name)
        script = self.run.path(f"{world.name}.sql")
        script.write_text(world.load, encoding="utf-8")
        if world.folder is None:
            psql(dsn, file=script)
        else:
            self._load_regression(dsn, script, world.folder.parent)
        psql(dsn, GRANTS)
        if world.owned:
            psql(dsn, OWNED)

    def _load_regression(self, dsn, script, folder):
        """The server's user reads the rows itself: it gets a copy of them. Functions in C fail, and are not wanted."""
        copy = self.run.path("regress")
        shutil.copytree(folder / "data", copy / "data")
        environment = {**dsn.environment(), "PG_ABS_SRCDIR": str(copy), "PG_LIBDIR": "/nonexistent", "PG_DLSUFFIX": ".so"}
        subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
        subprocess.run(["psql", "-X", "-q", "-f", script], env=environment, capture_output=True, check=True)

    def _gateway(self, level):
        gateway = Gateway(self.run).trust(self._trust.entry())
        postgres = gateway.config["listen"]["postgres"]
        postgres.update(default_target=self.worlds[0].target(0), limits={"failed_logins": "1000/min", "per_principal": 100})
        labels, rules = {}, []
        for world in self.worlds:
            for number, twin in enumerate(self.twins):
                name = world.target(number)
                login = {"user": ROLE, "auth": "trust"}
                upstream = {"host": twin.address, "port": twin.port, "database": world.name, "tls": "off"}
                upstream["allow_privileged_login"] = world.owned
                gateway.config["targets"][name] = {"postgres": {**upstream, "logins": [login]}}
                labels[name] = world.labels
                rules.append({"id": f"work-{name}", "who": {"groups": [GROUP]}, "target": name, "allow": ALLOWED})
                # Masks that show nothing of a value; the others do by design.
                masks = itertools.cycle(("redact", "nullify"))
                mask = {
                    label: {"with": next(masks), **({"lookup": "equality"} if LOOKED_UP.search(label) else {})}
                    for label in world.labels
                }
                rules.append({"id": f"seal-{name}", "target": name, "mask": mask})
                limit = {"probes": PROBES_MAX, "window": "24h"}
                rules.append({"id": f"lookups-{name}", "target": name, "who": {"groups": [GROUP]}, "limit": limit})
        gateway.policy(dump({"version": 1, "labels": labels, "rules": rules}))
        return gateway.start(level=level)

    def align(self, world):
        """Rows written anew on both twins: what was taken back leaves room behind, and how much of it is a matter of
        time (one that timed out, a page that was cleaned up while nobody looked)."""
        for twin in self.twins:
            psql(twin.admin(world.name), "VACUUM (FULL)")

    def connect(self, world, twin):
        """A session of a client, with what every statement runs under."""
        dsn = self.gateway.dsn(self._trust.token("agent-7", [GROUP]), dbname=world.target(twin))
        connection = wire.Connection(dsn.host, dsn.port).login(dsn, application_name="twins")
        answer = connection.cycle(wire.query(f"SET statement_timeout = {STATEMENT_MS_MAX}"))
        if answer[0][0] != "C":
            raise HarnessError(f"the gateway does not let a client bound its statements: {answer}")
        return connection

    def normal(self, data):
        """What differs between the two servers by construction made equal."""
        for second, first in self._alike:
            data = data.replace(second, first)
        return data


GRANTS = f"""
DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE} LOGIN; END IF; END $$;
DO $$ DECLARE s text; BEGIN
  FOR s IN SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('GRANT USAGE, CREATE ON SCHEMA %s TO {ROLE}', s);
    EXECUTE format('GRANT ALL ON ALL TABLES IN SCHEMA %s TO {ROLE}', s);
    EXECUTE format('GRANT ALL ON ALL SEQUENCES IN SCHEMA %s TO {ROLE}', s);
  END LOOP;
END $$;
"""
# Sequences of columns go with their tables.
OWNED = f"""
DO $$ DECLARE r regclass; BEGIN
  FOR r IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'p', 'v', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
    EXECUTE format('ALTER TABLE %s OWNER TO {ROLE}', r);
  END LOOP;
END $$;
"""
