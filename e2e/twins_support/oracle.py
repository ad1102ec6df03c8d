"""The server as oracle: what analysis predicted of every admitted statement, held against what the server says.

Three readings of the server's own: the origins in RowDescription, the column dependencies (pg_depend) of a temporary
view made from the statement, and the rewritten query tree. What one of them names and the analysis does not is an
error: a column that reaches the client, or chooses what does, and nobody knew. Of a statement about another (COPY,
DECLARE, PREPARE, EXPLAIN, CREATE TABLE AS) the server is asked about that other one.
"""

import re
import struct
import subprocess
from collections import Counter
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


RELATIONS = f"SELECT oid FROM pg_class WHERE oid >= {FIRST_USER_OBJECT}"
# The other statement, in the words of each kind.
OTHER = re.compile(
    r"\s*(?:copy\s*\((?P<copied>.*)\)\s*to\s+stdout.*"
    r"|(?:declare\s+\w+\s+(?:\w+\s+)*?cursor\s+(?:\w+\s+)*?for"
    r"|prepare\s+\w+\s*(?:\([^)]*\)\s*)?as"
    r"|explain\s*(?:\([^)]*\)|analyze|verbose|\s)*"
    r"|create\s+(?:\w+\s+)*?(?:table|view)\s+\w+\s+as)(?=[\s(])(?P<rest>.*))", re.I | re.S,
)
FROM_OTHER = re.compile(r"\s*(fetch|execute)\b", re.I)


@dataclass
class Taken:
    """An admitted statement: the one the server is asked about, and the columns that the client was told of."""

    source: str
    asked: str
    outputs: list


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
        self._sealed, self._relations = set(), set()
        self._tell = None
        self.missing, self.unread, self.counts = 0, 0, {}

    def take(self, unit, seen):
        if unit.batch:
            return
        other = None
        for sql, outputs in zip(unit.statements, seen.outputs):
            if FROM_OTHER.match(sql) and other is not None:
                # What the other statement made flows out here.
                other.outputs = other.outputs or outputs
                continue
            about = OTHER.fullmatch(sql)
            asked = (about["copied"] or about["rest"]) if about else sql
            is_own = about is None
            taken = self._statements.setdefault(sql, Taken(unit.source, asked, outputs if is_own else []))
            other = taken if about and not FROM_OTHER.match(asked) else other

    def judge(self, tell):
        """Every statement taken since the last time; `tell` is given what is missing."""
        self._tell, taken_since, self._statements = tell, self._statements, {}
        names = ", ".join(map(str, sorted(self._world.sealed)))
        self._sealed = {_column(line.replace("|", ".")) for line in psql(self._dsn, SEALED.format(names)).stdout.splitlines()}
        self._relations = set(map(int, psql(self._dsn, RELATIONS).stdout.split()))
        connection = prints_trees(self._dsn)
        for (sql, taken), predicted in zip(taken_since.items(), self._lineage.of(list(taken_since)), strict=True):
            counts = self.counts.setdefault(taken.source, Counter())
            counts["statements"] += 1
            if predicted is not None:
                counts["predicted"] += 1
                self._hold(connection, sql, taken, predicted)
        connection.socket.close()

    def _hold(self, connection, sql, taken, predicted):
        self._origins(sql, taken, predicted)
        in_tree = self._tree(connection, sql, taken, predicted)
        self._view(connection, sql, taken, predicted, in_tree)

    def _missing(self, sql, words):
        self.missing += 1
        self._tell(f"MISSING {self._world.name} {words}\n  {sql}")

    def failures(self):
        """What is not as it must be, in words."""
        found = [f"{self._world.name}: {self.missing} dependencies missing"] if self.missing else []
        return found + ([f"{self._world.name}: {self.unread} trees not understood"] if self.unread else [])

    def _covers(self, how, sql, needed, predicted):
        # Who reads a view has its rows, whatever it asks of them: what chooses them counts.
        known = self._lineage.closed(predicted.columns | {(relation, trees.WHOLE_ROW) for relation in predicted.relations})
        relations = predicted.relations | {relation for relation, _ in known}
        stored = [one for one in needed if one[0] >= FIRST_USER_OBJECT and one[1] >= 0]
        missing = [one for one in stored if (one[0] not in relations if one[1] == trees.WHOLE_ROW else one not in known)]
        if missing:
            self._missing(sql, f"{how} {sorted(missing)}")

    def _origins(self, sql, taken, predicted):
        counts = self.counts[taken.source]
        for number, (_, relation, attribute, _) in enumerate(taken.outputs):
            # What the transaction made itself is gone.
            if attribute <= 0 or relation not in self._relations:
                continue
            counts["origins"] += 1
            if number >= len(predicted.outputs) or (relation, attribute) not in predicted.outputs[number]:
                self._missing(sql, f"origin {number + 1}: {relation}.{attribute}")

    def _view(self, connection, sql, taken, predicted, in_tree):
        """A view depends on columns of sub-selects that nobody reads, too: those are counted, and of a relation known."""
        counts = self.counts[taken.source]
        connection.cycle(wire.query("BEGIN"))
        made = connection.cycle(wire.query(f"CREATE TEMP VIEW oracle AS {taken.asked}"))
        if made[-1][1] == b"T":
            counts["views"] += 1
            rows = [body for tag, body in connection.cycle(wire.query(DEPENDENCIES)) if tag == "D"]
            named = {tuple(map(int, cells(body))) for body in rows}
            if in_tree is not None:
                unread = {one for one in named - in_tree - self._lineage.closed(predicted.columns) if one[1] > 0}
                counts["unread"] += len(unread)
                named = (named & in_tree) | {(relation, trees.WHOLE_ROW) for relation, _ in unread}
            self._covers("view", sql, named, predicted)
        connection.cycle(wire.query("ROLLBACK"))

    def _tree(self, connection, sql, taken, predicted):
        """Every column in the rewritten tree; None where the server printed none."""
        counts = self.counts[taken.source]
        printed = printed_tree(connection, taken.asked)
        if printed is None:
            return None
        try:
            outputs, everything = trees.read(printed)
        except trees.Unreadable as problem:
            self.unread += 1
            self._tell(f"UNREAD {self._world.name} {problem}\n  {sql}")
            return None
        counts["trees"] += 1
        self._covers("tree", sql, everything, predicted)
        for flows, truth in zip(predicted.outputs, outputs):
            counts["outputs"] += 1
            if self._lineage.closed(flows) & self._sealed:
                counts["masked"] += 1
                counts["over-masked"] += not truth & self._sealed
        return everything


def prints_trees(dsn):
    """A session at the server whose statements can be asked for their trees."""
    connection = wire.Connection(dsn.host, dsn.port).login(dsn)
    connection.cycle(wire.query("SET debug_print_rewritten = on; SET debug_pretty_print = off"))
    return connection


def printed_tree(connection, sql):
    """The rewritten tree of a statement as the server prints it; None where it prints none."""
    connection.cycle(wire.query("SET client_min_messages = log"))
    messages = connection.cycle(wire.parse(sql), wire.SYNC)
    connection.cycle(wire.query("SET client_min_messages = warning"))
    said = [wire.error_fields(body) for tag, body in messages if tag == "N"]
    return next((one["D"] for one in said if one.get("M") == "rewritten parse tree:"), None)


def figures(counted):
    """Lines of what the oracles of all worlds counted, by source."""
    sums = {}
    for counts in counted:
        for source, one in counts.items():
            sums.setdefault(source, Counter()).update(one)
    for source, one in sorted(sums.items()):
        share = 100 * one["over-masked"] / one["masked"] if one["masked"] else 0.0
        yield (
            f"oracle {source}: {one['statements']} different admitted statements, {one['predicted']} of them analysed, "
            f"{one['origins']} origins, {one['views']} views, {one['trees']} trees, {one['unread']} columns that nobody reads; "
            f"{one['masked']} of {one['outputs']} outputs masked, {share:.1f} % of them clean by the server's own tree"
        )


def cells(body):
    """The values of a DataRow in text."""
    count, at, found = struct.unpack("!h", body[:2])[0], 2, []
    for _ in range(count):
        size = struct.unpack("!i", body[at:at + 4])[0]
        found.append(body[at + 4:at + 4 + size].decode())
        at += 4 + size
    return found
