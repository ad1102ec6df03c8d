"""Random queries over the tables of a world, built from parts: joins, sub-selects, CTEs, set operations, windows.

A safe query holds expressions of unsealed columns, and sealed columns bare in select lists that nothing compares. An
unsafe one puts any column anywhere."""

from .expressions import KINDS, Expressions

AGGREGATES = {
    "int": ["count(*)", "count({any})", "sum({int})", "max({int})", "min({int})"],
    "num": ["avg({num})", "sum({num})", "max({num})"],
    "text": ["max({text})", "string_agg({text}, ',')", "min({text})"],
    "bool": ["bool_and({bool})", "bool_or({bool})"],
    "array": ["array_agg({text})"], "json": ["jsonb_agg({any})", "jsonb_object_agg(coalesce({text}, 'k'), {any})"],
    "date": ["max({date})", "min({date})"],
}
RISKY_AGGREGATES = [
    "count(DISTINCT {any})", "string_agg({text}, ',' ORDER BY {any})", "array_agg({any} ORDER BY {any})", "mode() WITHIN GROUP (ORDER BY {any})",
    "percentile_disc(0.5) WITHIN GROUP (ORDER BY {num})", "max({any}::text) FILTER (WHERE {bool})", "variance({num})", "json_agg({any})",
    "rank({int}) WITHIN GROUP (ORDER BY {int})", "grouping({any})", "corr({num}::float8, {num}::float8)",
]
WINDOWS = ["row_number()", "rank()", "count(*)", "sum({int})", "lag({text})", "first_value({int})", "ntile(4)", "max({num})"]
ROWS_MAX = 20


class Queries:
    def __init__(self, random, tables, safe):
        self.random, self.safe = random, safe
        self.tables = [table for table in tables if table.of("int", sealed=False if safe else None)]
        self._aliases = 0

    def chance(self, share):
        return self.random.random() < share

    def alias(self):
        self._aliases += 1
        return f"t{self._aliases}"

    def expressions(self, scope):
        return Expressions(self.random, [(alias, column) for alias, table in scope for column in table.columns], self.safe)

    def filled(self, form, scope):
        from_scope = self.expressions(scope)
        return form.format_map({**{kind: from_scope.make(kind, 2) for kind in KINDS}, "any": from_scope.any(2)})

    def source(self):
        """(text of FROM, [(alias, table)]): one table, or two joined by a key."""
        table, alias = self.random.choice(self.tables), self.alias()
        text, scope = f"{table.name} AS {alias}", [(alias, table)]
        if self.chance(0.4):
            other, second = self.random.choice(self.tables), self.alias()
            joined = self.random.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
            text += f" {joined} {other.name} AS {second} ON {self.key(table, alias)} = {self.key(other, second)}"
            scope.append((second, other))
        return text, scope

    def key(self, table, alias):
        found = [one for one in table.of("int") if not one.sealed and one.name.endswith(("id", "no"))]
        found = found or [one for one in table.of("int") if not (self.safe and one.sealed)] or table.of("int")
        if not self.safe and self.chance(0.3):
            found = table.of("int")
        return f"{alias}.{self.random.choice(found).quoted}"

    def item(self, scope):
        """One entry of a select list."""
        alias, table = self.random.choice(scope)
        sealed = table.of(sealed=True)
        if sealed and self.chance(0.4):
            return f"{alias}.{self.random.choice(sealed).quoted}"
        if self.chance(0.5):
            return f"{alias}.{self.random.choice(table.columns).quoted}"
        return self.expressions(scope).any()

    def items(self, scope):
        return [f"{self.item(scope)} AS c{number}" for number in range(self.random.randint(1, 4))]

    def where(self, scope, share=0.6):
        return f" WHERE {self.expressions(scope).make('bool')}" if self.chance(share) else ""

    def order(self, scope):
        """By columns only: a bare number would name an output column, which may be a sealed one."""
        alias, table = self.random.choice(scope)
        keys = table.of(sealed=False) if self.safe else table.columns
        if not keys or self.chance(0.5):
            return f" LIMIT {ROWS_MAX}"
        key = self.random.choice([one for one in keys if one.kind != "json"] or keys)
        return f" ORDER BY {alias}.{key.quoted}{self.random.choice(['', ' DESC', ' NULLS FIRST'])} LIMIT {ROWS_MAX}"

    def plain(self):
        text, scope = self.source()
        return f"SELECT {', '.join(self.items(scope))} FROM {text}{self.where(scope)}{self.order(scope)}"

    def star(self):
        table, alias = self.random.choice(self.tables), self.alias()
        what = self.random.choice(["*", f"{alias}.*", f"{alias}.*, 1 AS one"])
        return f"SELECT {what} FROM {table.name} AS {alias}{self.where([(alias, table)])} LIMIT {ROWS_MAX}"

    def grouped(self):
        text, scope = self.source()
        keys = [self.expressions(scope).make(self.random.choice(["int", "text", "date", "bool"]), 1)]
        keys = [f"coalesce({key}, NULL)" for key in keys]
        kinds = self.random.choices(list(AGGREGATES), k=2)
        values = [self.filled(self.random.choice(AGGREGATES[kind]), scope) for kind in kinds]
        if not self.safe and self.chance(0.5):
            values.append(self.filled(self.random.choice(RISKY_AGGREGATES), scope))
        by = keys[0] if self.safe else self.random.choice([keys[0], f"ROLLUP ({keys[0]})", f"GROUPING SETS (({keys[0]}), ())"])
        having = f" HAVING {values[0]} IS NOT NULL" if self.chance(0.3) else ""
        return f"SELECT {', '.join([*keys, *values])} FROM {text}{self.where(scope)} GROUP BY {by}{having} LIMIT {ROWS_MAX}"

    def windowed(self):
        text, scope = self.source()
        call = self.filled(self.random.choice(WINDOWS), scope)
        of = self.expressions(scope)
        by = f"PARTITION BY {of.leaf('text')} ORDER BY {of.leaf('int')}"
        return f"SELECT {', '.join(self.items(scope))}, {call} OVER ({by}) AS w FROM {text}{self.where(scope)} LIMIT {ROWS_MAX}"

    def derived(self):
        """A sub-select in FROM, as a CTE, or LATERAL."""
        table, alias, outer = self.random.choice(self.tables), self.alias(), self.alias()
        chosen = self.random.sample(table.columns, min(len(table.columns), 3))
        inner = f"SELECT {', '.join(f'{alias}.{one.quoted}' for one in chosen)} FROM {table.name} AS {alias}"
        inner += self.where([(alias, table)])
        free = [one for one in chosen if not (self.safe and one.sealed)]
        where = f" WHERE {outer}.{free[0].quoted} IS NOT NULL" if free and self.chance(0.4) else ""
        listed = ", ".join(f"{outer}.{one.quoted}" for one in chosen)
        form = self.random.randrange(3)
        if form == 0:
            return f"SELECT {listed} FROM ({inner}) AS {outer}{where} LIMIT {ROWS_MAX}"
        if form == 1:
            how = self.random.choice(["", "MATERIALIZED ", "NOT MATERIALIZED "])
            return f"WITH {outer} AS {how}({inner}) SELECT {listed} FROM {outer}{where} LIMIT {ROWS_MAX}"
        return f"SELECT n, {listed} FROM generate_series(1, 2) AS n, LATERAL ({inner} LIMIT 3) AS {outer}{where}"

    def scalar(self):
        """Sub-selects in select list and WHERE."""
        text, scope = self.source()
        table, alias = self.random.choice(self.tables), self.alias()
        column = self.random.choice(table.columns)
        matching = f"{self.key(table, alias)} = {self.key(scope[0][1], scope[0][0])}"
        value = f"(SELECT {alias}.{column.quoted} FROM {table.name} AS {alias} WHERE {matching} LIMIT 1)"
        inside = f"EXISTS (SELECT FROM {table.name} AS {alias} WHERE {matching} AND {self.expressions([(alias, table)]).make('bool', 1)})"
        return f"SELECT {self.item(scope)} AS c, {value} AS v FROM {text} WHERE {inside} LIMIT {ROWS_MAX}"

    def united(self):
        table, first, second = self.random.choice(self.tables), self.alias(), self.alias()
        column = self.random.choice(table.columns)
        how = "UNION ALL" if self.safe else self.random.choice(["UNION ALL", "UNION", "INTERSECT", "EXCEPT", "EXCEPT ALL"])
        one = f"SELECT {first}.{column.quoted} FROM {table.name} AS {first}{self.where([(first, table)])}"
        other = f"SELECT {second}.{column.quoted} FROM {table.name} AS {second}{self.where([(second, table)])}"
        return f"({one} LIMIT 5) {how} ({other} LIMIT 5)"

    def distinct(self):
        text, scope = self.source()
        of = self.expressions(scope)
        if self.chance(0.5):
            return f"SELECT DISTINCT {of.any(1)}, {of.leaf('int')} FROM {text}{self.where(scope)} LIMIT {ROWS_MAX}"
        key = f"coalesce({of.leaf('int')}, 0)"
        sort = "" if not self.safe and self.chance(0.3) else f" ORDER BY {key}"
        return f"SELECT DISTINCT ON ({key}) {', '.join(self.items(scope))} FROM {text}{self.where(scope)}{sort} LIMIT {ROWS_MAX}"

    def recursive(self):
        table, alias = self.random.choice(self.tables), self.alias()
        column = self.random.choice(table.columns)
        start = f"SELECT 1 AS n, {alias}.{column.quoted} AS v FROM {table.name} AS {alias}{self.where([(alias, table)])}"
        return f"WITH RECURSIVE r AS ({start} UNION ALL SELECT n + 1, v FROM r WHERE n < 3) SELECT n, v FROM r LIMIT {ROWS_MAX}"

    def any(self):
        forms = [self.plain] * 4 + [self.star, self.grouped, self.grouped, self.windowed, self.derived, self.derived]
        forms += [self.scalar, self.united, self.distinct, self.recursive]
        form = self.random.choice(forms)
        return form.__name__, form()
