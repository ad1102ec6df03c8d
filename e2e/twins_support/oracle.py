"""The server as oracle: what analysis predicted of every admitted statement, held against what the server says.

Three readings of the server's own: the origins in RowDescription, the column dependencies (pg_depend) of a temporary
view made from the statement, and the rewritten query tree. What one of them names and the analysis does not is an
error: a column that reaches the client, or chooses what does, and nobody knew.
"""

import struct
import subprocess
from dataclasses import dataclass, field

from lib import wire
from lib.dsn import psql
from lib.gateway import REPOSITORY, build_environment
from lib.run import HarnessError

from . import trees

FIRST_USER_OBJECT = 16384
DEPENDENCIES = """
SELECT d.refobjid, d.refobjsubid FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
WHERE r.ev_class = 'pg_temp.oracle'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
"""
SEALED = """
SELECT a.attrelid, a.attnum FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE (n.nspname, c.relname, a.attname) IN ({})
"""


@dataclass
class Predicted:
    outputs: list = field(default_factory=list)
    columns: set = field(default_factory=set)
    relations: set = field(default_factory=set)


def _column(word):
    relation, attribute = word.split(".")
    return int(relation), int(attribute)


class Lineage:
    """The analysis in a program of its own, over a twin's catalog."""

    def __init__(self, run, dsn):
        self._catalog = run.path(f"{dsn.dbname}.catalog")
        script = run.path(f"{dsn.dbname}.script")
        script.write_text(self._example("catalog_script"), encoding="utf-8")
        self._catalog.write_text(psql(dsn, file=script).stdout, encoding="utf-8")
        self.behind = {}

    @staticmethod
    def _example(name, *words, data=None):
        command = ["cargo", "run", "--quiet", "--locked", "-p", "exeat-sql", "--example", name, "--", *map(str, words)]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=build_environment(), input=data, capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise HarnessError(f"example {name} failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    def of(self, statements):
        """What is predicted of each; None where the analysis knows nothing."""
        said = self._example("lineage", self._catalog, data="".join(f"{sql}\0" for sql in statements))
        found, current = [], None
        for line in said.splitlines():
            word, *rest = line.split()
            if word == "behind":
                self.behind[_column(rest[0])] = {_column(one) for one in rest[1:]}
            elif word in ("known", "opaque", "failed"):
                current = Predicted() if word == "known" else None
            elif word == "output":
                flows = {_column(one) for one in rest if one not in "-?"}
                current.outputs.append(flows)
                current.columns |= flows
            elif word == "use":
                current.columns.add(_column(rest[0]))
            elif word == "reads":
                current.relations.add(int(rest[0]))
            else:
                found.append(current)
        return found

    def closed(self, columns):
        """With what stands behind columns of views."""
        found, open_ = set(), list(columns)
        while open_:
            one = open_.pop()
            if one not in found:
                found.add(one)
                open_.extend(self.behind.get(one, ()))
        return found


class Oracle:
    """Collects admitted statements of one world; `judge` holds them against the server."""

    def __init__(self, run, world, twin):
        self._world = world
        self._dsn = twin.admin(world.name)
        self._lineage = Lineage(run, self._dsn)
        self._statements = {}
        self._sealed = set()
        self.errors, self.counts = [], dict.fromkeys(("origins", "views", "trees", "unread", "masked", "over-masked"), 0)

    def take(self, unit, seen):
        if len(unit.statements) == 1 and not unit.batch:
            self._statements[unit.text()] = seen.outputs[0] if seen.outputs else []

    def judge(self):
        names = ", ".join(map(str, sorted(self._world.sealed)))
        self._sealed = {_column(line.replace("|", ".")) for line in psql(self._dsn, SEALED.format(names)).stdout.splitlines()}
        connection = wire.Connection(self._dsn.host, self._dsn.port).login(self._dsn)
        connection.cycle(wire.query("SET debug_print_rewritten = on; SET debug_pretty_print = off"))
        statements = list(self._statements)
        for sql, predicted in zip(statements, self._lineage.of(statements), strict=True):
            if predicted is not None:
                self._origins(sql, predicted)
                in_tree = self._tree(connection, sql, predicted)
                self._view(connection, sql, predicted, in_tree)

    def _covers(self, how, sql, needed, predicted):
        known = self._lineage.closed(predicted.columns)
        relations = predicted.relations | {relation for relation, _ in known}
        stored = [one for one in needed if one[0] >= FIRST_USER_OBJECT and one[1] >= 0]
        missing = [one for one in stored if (one[0] not in relations if one[1] == trees.WHOLE_ROW else one not in known)]
        if missing:
            self.errors.append(f"MISSING {self._world.name} {how} {sorted(missing)}\n  {sql}")

    def _origins(self, sql, predicted):
        for number, (_, relation, attribute, _) in enumerate(self._statements[sql]):
            if relation >= FIRST_USER_OBJECT and attribute > 0 and predicted.outputs:
                self.counts["origins"] += 1
                if (relation, attribute) not in predicted.outputs[number]:
                    self.errors.append(f"MISSING {self._world.name} origin {number + 1}: {relation}.{attribute}\n  {sql}")

    def _view(self, connection, sql, predicted, in_tree):
        """A view depends on columns of sub-selects that nobody reads, too: those are counted, and of a relation known."""
        connection.cycle(wire.query("BEGIN"))
        made = connection.cycle(wire.query(f"CREATE TEMP VIEW oracle AS {sql}"))
        if made[-1][1] == b"T":
            self.counts["views"] += 1
            rows = [body for tag, body in connection.cycle(wire.query(DEPENDENCIES)) if tag == "D"]
            named = {tuple(map(int, cells(body))) for body in rows}
            if in_tree is not None:
                unread = {one for one in named - in_tree - self._lineage.closed(predicted.columns) if one[1] > 0}
                self.counts["unread"] += len(unread)
                named = (named & in_tree) | {(relation, trees.WHOLE_ROW) for relation, _ in unread}
            self._covers("view", sql, named, predicted)
        connection.cycle(wire.query("ROLLBACK"))

    def _tree(self, connection, sql, predicted):
        """Every column in the rewritten tree; None where the server printed none."""
        connection.cycle(wire.query("SET client_min_messages = log"))
        messages = connection.cycle(wire.parse(sql), wire.SYNC)
        connection.cycle(wire.query("SET client_min_messages = warning"))
        said = [wire.error_fields(body) for tag, body in messages if tag == "N"]
        printed = [one["D"] for one in said if one.get("M") == "rewritten parse tree:"]
        outputs, everything = trees.read(printed[0]) if printed else ([], set())
        if not printed:
            return None
        self.counts["trees"] += 1
        self._covers("tree", sql, everything, predicted)
        for flows, truth in zip(predicted.outputs, outputs):
            if self._lineage.closed(flows) & self._sealed:
                self.counts["masked"] += 1
                self.counts["over-masked"] += not truth & self._sealed
        return everything

    def line(self):
        counts = self.counts
        share = 100 * counts["over-masked"] / counts["masked"] if counts["masked"] else 0.0
        return (
            f"oracle {self._world.name}: {len(self._statements)} statements, {counts['origins']} origins, {counts['views']} views, "
            f"{counts['trees']} trees, {counts['unread']} columns that nobody reads, {len(self.errors)} missing; {counts['masked']} masked outputs, {share:.1f} % of them clean "
            "by the server's own tree"
        )


def cells(body):
    """The values of a DataRow in text."""
    count, at, found = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        size = struct.unpack("!i", body[at:at + 4])[0]
        found.append(body[at + 4:at + 4 + size].decode())
        at += 4 + size
    return found
