"""The tables of a twin database as the generator sees them: names, kinds of columns, which are sealed."""

from dataclasses import dataclass

from lib.dsn import psql

COLUMNS = """
SELECT n.nspname, c.relname, c.relkind, a.attname, CASE WHEN t.typtype = 'd' THEN b.typname ELSE t.typname END,
       format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND a.attnum = ANY (i.indkey)),
       quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(a.attname), a.attnum
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
WHERE c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped AND c.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2, a.attnum
"""
KINDS = {
    "int2": "int", "int4": "int", "int8": "int", "numeric": "num", "float8": "num", "text": "text", "varchar": "text",
    "date": "date", "timestamptz": "ts", "bool": "bool", "jsonb": "json", "bytea": "bytea", "uuid": "uuid", "_text": "array",
}


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    full_type: str
    generated: bool
    unique: bool
    quoted: str
    sealed: bool
    number: int

    @property
    def kind(self):
        return KINDS.get(self.type, "other")


@dataclass(frozen=True)
class Table:
    schema: str
    bare_name: str
    kind: str
    name: str
    columns: tuple

    @property
    def bare_quoted(self):
        return self.name.rsplit(".", 1)[1]

    def of(self, kind=None, sealed=None):
        return [
            one for one in self.columns
            if (kind is None or one.kind == kind) and (sealed is None or one.sealed == sealed)
        ]


def read(dsn, sealed):
    """`sealed`: the (schema, table, column) triples whose values a client must not learn, derived ones too."""
    tables = {}
    for line in psql(dsn, COLUMNS, options=("-F", "\x1f")).stdout.splitlines():
        schema, table, relkind, name, kind, full, generated, unique, full_name, quoted, number = line.split("\x1f")
        column = Column(
            name, kind, full, generated == "t", unique == "t", quoted, (schema, table, name) in sealed, int(number),
        )
        tables.setdefault((schema, table, relkind, full_name), []).append(column)
    return [Table(*key, tuple(columns)) for key, columns in tables.items()]
