"""Our own statements: safe ones by construction, and everything else with sealed columns in every place."""

from pathlib import Path

from .expressions import Expressions
from .queries import ROWS_MAX, Queries
from .transcript import MODES, Unit

SAFE_SHARE = 0.4
FORM_SHARE = 0.4
FORMS = [line for line in Path(__file__).with_name("forms.sql").read_text(encoding="utf-8").splitlines() if line]
SEPARATOR = " ;; "
SAFE, UNSAFE = "safe", "edge"


class Generator:
    """Units for one world, all from one seed."""

    def __init__(self, random, world):
        self.random, self.world = random, world

    def unit(self):
        safe = self.random.random() < SAFE_SHARE
        mode = self.random.choice(MODES)
        if not safe and self.random.random() < FORM_SHARE:
            form = self.random.choice(FORMS)
            return Unit(UNSAFE, self.filled(form).split(SEPARATOR), mode=mode, form=form)
        queries = Queries(self.random, self.world.tables, safe)
        form, sql = queries.any()
        return Unit(SAFE if safe else UNSAFE, self.wrapped(sql, safe), safe, mode, form=form)

    def wrapped(self, sql, safe):
        """The query itself, or another way to its rows."""
        ways = [[sql]] * 12 + [[f"COPY ({sql}) TO STDOUT"]]
        ways += [["DECLARE c CURSOR FOR " + sql, f"FETCH {ROWS_MAX} FROM c", "CLOSE c"]]
        ways += [["PREPARE p AS " + sql, "EXECUTE p", "DEALLOCATE p"], [f"SELECT * FROM ({sql}) AS x"]]
        if not safe:
            ways += [["EXPLAIN " + sql], ["CREATE TEMP TABLE mine AS " + sql, "SELECT * FROM mine"]]
            ways += [[f"SELECT count(*) FROM ({sql}) x"], ["EXPLAIN (COSTS OFF) " + sql], [f"SELECT EXISTS ({sql})"], [f"SELECT json_agg(x) FROM ({sql}) AS x"]]
        return self.random.choice(ways)

    def filled(self, form):
        tables = [table for table in self.world.tables if table.of(sealed=True) and table.of("int", sealed=False)]
        table = self.random.choice(tables)
        sealed, plain = table.of(sealed=True), table.of(sealed=False)
        one = self.random.choice(sealed)
        alias = "a" if " a" in form else table.name
        predicate = Expressions(self.random, [(alias, column) for column in table.columns], safe=False).make("bool")
        values = {
            "t": table.name, "s": one.quoted, "su": one.name, "s2": self.random.choice(sealed).quoted,
            "u": self.random.choice(plain).quoted, "k": table.of("int", sealed=False)[0].quoted, "e": predicate,
        }
        return form.format_map(values)
