"""Random writes over the tables of a world, each with something that shows what it did: RETURNING, or a query after it.

Nothing is kept: whoever runs them rolls back. Columns of every kind are assigned, compared and returned, sealed ones
too; which of it the gateway lets through is its own to say."""

from .expressions import LITERALS, Expressions
from .queries import ROWS_MAX, Queries

NEW_KEY = 100_000
# What a column of this kind takes without a cast; anything else gets its default.
VALUES = {kind: [one for one in found if kind != "array"] for kind, found in LITERALS.items()}


class Writes:
    def __init__(self, random, world):
        self.random = random
        self.tables = [one for one in world.tables if one.kind in "rp" and one.of("int", sealed=False)]
        self._queries = Queries(random, self.tables, safe=False)

    def chance(self, share):
        return self.random.random() < share

    def expressions(self, scope):
        return Expressions(self.random, [(alias, column) for alias, table in scope for column in table.columns], self.chance(0.7))

    def columns(self, table, share=0.2):
        """Some to write to: mostly unsealed ones, never what the server computes."""
        free = [one for one in table.columns if not one.generated and (self.chance(0.1) or not one.name.endswith("id"))]
        chosen = [one for one in free if self.chance(share if one.sealed else 0.5)]
        return chosen or free[:1] or [one for one in table.columns if not one.generated][:1]

    def row(self, table):
        """Columns of a new row: nearly all, for most must not be NULL."""
        return [one for one in table.columns if not one.generated and self.chance(0.9)] or list(table.columns[:1])

    def value(self, column, scope=()):
        """A literal, or an expression over what is in scope."""
        fitting = VALUES.get(column.kind)
        if not fitting:
            return "DEFAULT"
        if scope and self.chance(0.6):
            return f"({self.expressions(scope).make(column.kind, 2)})::{column.full_type}"
        if column.kind == "int":
            return str(NEW_KEY + self.random.randrange(100))
        return self.random.choice([*fitting, *fitting, "DEFAULT"])

    def assigned(self, table, scope):
        return ", ".join(f"{one.quoted} = {self.value(one, scope)}" for one in self.columns(table))

    def condition(self, table, alias, scope):
        """One row by its key, or any condition."""
        key = f"{alias}.{self.key(table)} IN (1, 2, 3)"
        if self.chance(0.6):
            return key
        return f"{key} AND {self.expressions(scope).make('bool', 2)}"

    def key(self, table):
        found = [one for one in table.of("int", sealed=False) if one.name.endswith(("id", "no"))]
        return (found or table.of("int", sealed=False))[0].quoted

    def returning(self, scope):
        if self.chance(0.3):
            return ""
        if self.chance(0.3):
            return " RETURNING *"
        return f" RETURNING {', '.join(self._queries.items(scope))}"

    def insert(self):
        table = self.random.choice(self.tables)
        chosen = self.row(table)
        names = ", ".join(one.quoted for one in chosen)
        if self.chance(0.3):
            other = self.random.choice(self.tables)
            values = ", ".join(f"({self.expressions([('b', other)]).make(one.kind, 1)})::{one.full_type}" if one.kind in VALUES else "NULL" for one in chosen)
            source = f"SELECT {values} FROM {other.name} AS b WHERE b.{self.key(other)} < 4"
        else:
            rows = [", ".join(self.value(one) for one in chosen) for _ in range(self.random.randint(1, 2))]
            source = "VALUES " + ", ".join(f"({row})" for row in rows)
        conflict = ""
        if self.chance(0.5):
            unique = [one.quoted for one in table.columns if one.unique] or [self.key(table)]
            target = f" ({self.random.choice(unique)})"
            scope = [(table.name, table), ("excluded", table)]
            conflict = f" ON CONFLICT{self.random.choice(['', target])} DO NOTHING"
            if self.chance(0.5):
                where = f" WHERE {self.expressions(scope).make('bool', 1)}" if self.chance(0.3) else ""
                conflict = f" ON CONFLICT{target} DO UPDATE SET {self.assigned(table, scope)}{where}"
        returning = " RETURNING *" if self.chance(0.4) else f" RETURNING {', '.join(one.quoted for one in chosen)}"
        return f"INSERT INTO {table.name} ({names}) {source}{conflict}{returning}"

    def update(self):
        table, other = self.random.choice(self.tables), self.random.choice(self.tables)
        scope, more = [("a", table)], ""
        if self.chance(0.3):
            scope.append(("b", other))
            more = f" FROM {other.name} AS b"
        joined = f" AND a.{self.key(table)} = b.{self.key(other)}" if more else ""
        where = self.condition(table, "a", scope) + joined
        return f"UPDATE {table.name} AS a SET {self.assigned(table, scope)}{more} WHERE {where}{self.returning(scope)}"

    def delete(self):
        table, other = self.random.choice(self.tables), self.random.choice(self.tables)
        scope, more = [("a", table)], ""
        if self.chance(0.3):
            scope.append(("b", other))
            more = f" USING {other.name} AS b"
        where = self.condition(table, "a", scope)
        return f"DELETE FROM {table.name} AS a{more} WHERE {where}{self.returning(scope)}"

    def merge(self):
        table, other = self.random.choice(self.tables), self.random.choice(self.tables)
        scope = [("a", table), ("b", other)]
        source = f"{other.name} AS b"
        if self.chance(0.4):
            source = f"(SELECT * FROM {other.name} WHERE {self.key(other)} < 4) AS b"
        branches = []
        for left in reversed(range(self.random.randint(1, 3))):
            also = f" AND {self.expressions(scope).make('bool', 1)}" if left or self.chance(0.3) else ""
            does = self.random.choice(["DO NOTHING", "DELETE", f"UPDATE SET {self.assigned(table, scope)}"])
            branches.append(f"WHEN MATCHED{also} THEN {does}")
        if self.chance(0.4):
            chosen = self.row(table)
            values = ", ".join(self.value(one, [("b", other)]) for one in chosen)
            branches.append(f"WHEN NOT MATCHED THEN INSERT ({', '.join(one.quoted for one in chosen)}) VALUES ({values})")
        on = f"a.{self.key(table)} = b.{self.key(other)} AND a.{self.key(table)} < 4"
        return f"MERGE INTO {table.name} AS a USING {source} ON {on} {' '.join(branches)}"

    def inside_with(self):
        """What a statement that writes gives back, as a table of another."""
        table = self.random.choice(self.tables)
        chosen = self.random.sample(table.columns, min(3, len(table.columns)))
        listed = ", ".join(one.quoted for one in chosen)
        scope = [("a", table)]
        write = f"UPDATE {table.name} AS a SET {self.assigned(table, scope)} WHERE {self.condition(table, 'a', scope)} RETURNING {listed}"
        if self.chance(0.4):
            write = f"DELETE FROM {table.name} AS a WHERE {self.condition(table, 'a', scope)} RETURNING {listed}"
        free = [one for one in chosen if not one.sealed or self.chance(0.2)]
        where = f" WHERE w.{free[0].quoted} IS NOT NULL" if free and self.chance(0.4) else ""
        return f"WITH w AS ({write}) SELECT {self.random.choice(['count(*)', 'w.*', listed])} FROM w{where}"

    def after(self):
        """Something that would tell what the write did."""
        table = self.random.choice(self.tables)
        chosen = self.random.sample(table.columns, min(3, len(table.columns)))
        listed = ", ".join(one.quoted for one in chosen)
        key = self.key(table)
        return self.random.choice([
            f"SELECT count(*) FROM {table.name}",
            f"SELECT {listed} FROM {table.name} WHERE {key} < 4 OR {key} >= {NEW_KEY} LIMIT {ROWS_MAX}",
            f"COPY (SELECT * FROM {table.name} WHERE {key} >= {NEW_KEY}) TO STDOUT",
        ])

    def any(self):
        """(form, statements)"""
        form = self.random.choice([self.insert, self.update, self.update, self.delete, self.merge, self.inside_with])
        statements = [form()]
        if self.chance(0.5):
            statements.append(self.after())
        return form.__name__, statements
