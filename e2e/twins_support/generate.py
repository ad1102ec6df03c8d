"""Our own statements: safe ones by construction, and everything else with sealed columns in every place."""

from pathlib import Path

from .expressions import Expressions
from .queries import ROWS_MAX, Queries
from .transcript import MODES, Unit
from .writes import Writes

SAFE_SHARE, WRITE_SHARE = 0.35, 0.2
FORM_SHARE = 0.4
BATCH_SHARE = 0.2
# Sealed columns of a kind that a form asks for.
KINDS = (("array", "arr"), ("json", "js"))
PLACES = {kind: f"{{{name}}}" for kind, name in KINDS}
FORMS = [line for line in Path(__file__).with_name("forms.sql").read_text(encoding="utf-8").splitlines() if line]
SEPARATOR = " ;; "
SAFE, UNSAFE, WRITE = "safe", "edge", "write"


class Generator:
    """Units for one world, all from one seed."""

    def __init__(self, random, world):
        self.random, self.world = random, world
        self.writes = Writes(random, world)

    def unit(self):
        source = self.random.choices([SAFE, WRITE, UNSAFE], [SAFE_SHARE, WRITE_SHARE, 1 - SAFE_SHARE - WRITE_SHARE])[0]
        mode = self.random.choice(MODES)
        if source == WRITE:
            form, statements = self.writes.any()
        elif source == UNSAFE and self.random.random() < FORM_SHARE:
            form = self.random.choice(FORMS)
            statements = self.filled(form).split(SEPARATOR)
        else:
            form, sql = Queries(self.random, self.world.tables, source == SAFE).any()
            statements = self.wrapped(sql, source == SAFE)
        batch = mode == "simple" and len(statements) > 1 and self.random.random() < BATCH_SHARE
        return Unit(source, ["; ".join(statements)] if batch else statements, source == SAFE, mode, form=form, batch=batch)

    def wrapped(self, sql, safe):
        """The query itself, or another way to its rows."""
        ways = [[sql]] * 12 + [[f"COPY ({sql}) TO STDOUT"], [f"COPY ({sql}) TO STDOUT (FORMAT csv, HEADER)"]]
        ways += [["DECLARE c CURSOR FOR " + sql, f"FETCH {ROWS_MAX} FROM c", "CLOSE c"]]
        ways += [["PREPARE p AS " + sql, "EXECUTE p", "DEALLOCATE p"], [f"SELECT * FROM ({sql}) AS x"]]
        if not safe:
            ways += [["EXPLAIN " + sql], ["CREATE TEMP TABLE mine AS " + sql, "SELECT * FROM mine"]]
            ways += [["CREATE TEMP VIEW mine AS " + sql, "SELECT * FROM mine", "SELECT count(*) FROM mine"]]
            ways += [["DECLARE c SCROLL CURSOR FOR " + sql, "FETCH LAST FROM c", "MOVE BACKWARD 2 IN c", "FETCH NEXT FROM c"]]
            ways += [[f"COPY ({sql}) TO STDOUT (FORMAT binary)"], [f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {sql}"]]
            ways += [["PREPARE p AS " + sql, "EXPLAIN (COSTS OFF) EXECUTE p", "EXECUTE p"], ["SAVEPOINT s", sql, "ROLLBACK TO s", sql]]
            ways += [[f"SELECT count(*) FROM ({sql}) x"], ["EXPLAIN (COSTS OFF) " + sql], [f"SELECT EXISTS ({sql})"], [f"SELECT json_agg(x) FROM ({sql}) AS x"]]
        return self.random.choice(ways)

    def filled(self, form):
        tables = [table for table in self.world.tables if table.of(sealed=True) and table.of("int", sealed=False)]
        for kind, place in PLACES.items():
            # Where there is none, the form is about another column, and mostly the server's to refuse.
            tables = [table for table in tables if place in form and table.of(kind, sealed=True)] or tables
        table = self.random.choice(tables)
        sealed, plain = table.of(sealed=True), table.of(sealed=False)
        one = self.random.choice(sealed)
        alias = "a" if " a" in form else table.name
        predicate = Expressions(self.random, [(alias, column) for column in table.columns], safe=False).make("bool")
        values = {
            "t": table.name, "tn": table.bare_quoted, "s": one.quoted, "su": one.name, "s2": self.random.choice(sealed).quoted,
            **{name: self.random.choice(table.of(kind, sealed=True) or sealed).quoted for kind, name in KINDS},
            "u": self.random.choice(plain).quoted, "k": table.of("int", sealed=False)[0].quoted, "e": predicate,
        }
        return form.format_map(values)
