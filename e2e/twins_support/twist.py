"""Gives one of two equal databases other sealed values, and proves that nothing else of them differs.

Both twins run the same statements, so that rows lie in the same order on the same pages; in the first one every value
is replaced by itself. Where no unique index forbids it, some values of the second become equal to others.
"""

from pathlib import Path

from lib.dsn import psql
from lib.run import HarnessError

SQL = Path(__file__).with_name("twist.sql")
# How a value of this type is replaced; every other type goes through its text.
BY_TYPE = {
    "date": "(date '1980-01-01' - ({0} - date '1980-01-01'))",
    "int4": "pg_temp.twist_number({0})::int4",
    "int8": "pg_temp.twist_number({0})::int8",
    "numeric": "pg_temp.twist_number({0})",
    "uuid": "pg_temp.twist_hex({0}::text)::uuid",
    "bytea": "decode(pg_temp.twist_hex(encode({0}, 'hex')), 'hex')",
    "jsonb": "pg_temp.twist_json({0})",
    "_text": "pg_temp.twist_array({0})",
}
DUPLICATED = ("text", "date")
DUPLICATE_EVERY = 5


def value(column, changed):
    """What one twin holds in the place of the column's value."""
    if not column.sealed:
        return column.quoted
    # No remainder is negative: both twins get the same plan, but only one gets duplicates.
    chosen = f"row_number() OVER w_{column.number} % {DUPLICATE_EVERY} = {0 if changed else -1}"
    held = column.quoted
    if column.type in DUPLICATED and not column.unique:
        held = f"(CASE WHEN {chosen} THEN first_value({held}) OVER w_{column.number} ELSE {held} END)"
    if not changed:
        return held
    return BY_TYPE.get(column.type, f"pg_temp.twist_text({{0}}::text)::{column.full_type}").format(held)


def statements(tables, changed):
    """The script for one twin; `changed` says whether it is the one that gets other values."""
    yield "SET client_min_messages = warning; SET session_replication_role = replica;"
    yield SQL.read_text(encoding="utf-8")
    for table in (one for one in tables if one.kind == "r"):
        yield rewritten(table, [column for column in table.columns if not column.generated], changed)
    for table in (one for one in tables if one.kind == "m"):
        yield f"REFRESH MATERIALIZED VIEW {table.name};"
    for table in (one for one in tables if one.kind in "rm"):
        yield f"VACUUM (FULL, ANALYZE) {table.name};"


def rewritten(table, columns, changed):
    """Every row anew, in stored order: an UPDATE would leave rows in an order that depends on what it changed."""
    widths = [
        f"w_{one.number} AS (PARTITION BY octet_length({one.quoted}::text) ORDER BY place)"
        for one in columns if one.sealed and one.type in DUPLICATED and not one.unique
    ]
    values = ", ".join(f"{value(one, changed)} AS v_{one.number}" for one in columns)
    windows = f"WINDOW {', '.join(widths)}" if widths else ""
    return f"""
        CREATE TEMP TABLE rows AS
            SELECT place, {values} FROM (SELECT *, ctid AS place FROM ONLY {table.name}) AS s {windows} ORDER BY place;
        DELETE FROM ONLY {table.name};
        INSERT INTO {table.name} ({', '.join(one.quoted for one in columns)}) OVERRIDING SYSTEM VALUE
            SELECT {', '.join(f'v_{one.number}' for one in columns)} FROM rows ORDER BY place;
        DROP TABLE rows;"""


def twist(run, dsn, tables, changed):
    script = run.path("twist.sql")
    script.write_text("\n".join(statements(tables, changed)), encoding="utf-8")
    psql(dsn, file=script)


def prove(first, second, tables):
    """Unsealed columns, NULLs and stored widths are equal, row by row in stored order; sealed values are not."""
    for table in (one for one in tables if one.kind in "rm"):
        plain = [f"t.{one.quoted}" for one in table.columns if not one.sealed]
        sealed = [one for one in table.columns if one.sealed]
        widths = [f"pg_column_size(t.{one.quoted})" for one in sealed]
        same = f"SELECT ctid, {', '.join([*plain, *widths])} FROM ONLY {table.name} t"
        if _answer(first, same) != _answer(second, same):
            raise HarnessError(f"twins differ in more than sealed values: {table.name}; mend twist.sql")
        for column in sealed:
            value = f"SELECT t.{column.quoted} FROM ONLY {table.name} t WHERE t.{column.quoted} IS NOT NULL"
            found = _answer(first, value)
            if found and found == _answer(second, value):
                raise HarnessError(f"twins are equal in {table.name}.{column.name}; mend twist.sql")


def _answer(dsn, sql):
    return psql(dsn, sql).stdout
