"""A client's own values go into relations with sealed columns, come back masked, and success tells nothing."""

import psycopg
import pytest

from streams import admin, serving
from lib.yaml_text import dump

SECRET = "512-66-7331"
TABLES = f"""
DROP SCHEMA IF EXISTS sealed_writes CASCADE;
CREATE SCHEMA sealed_writes;
SET search_path = sealed_writes;
CREATE TABLE staff (id integer PRIMARY KEY, city text, ssn text, pay integer, CHECK (pay IS NULL OR length(city) > pay));
CREATE TABLE keyed (id integer PRIMARY KEY, ssn text UNIQUE);
CREATE TABLE plain (id integer PRIMARY KEY, note text);
CREATE TABLE parent (id integer, city text, ssn text);
CREATE TABLE child () INHERITS (parent);
CREATE VIEW listed AS SELECT id AS number, ssn AS note, upper(city) AS town FROM staff;
CREATE VIEW chosen AS SELECT id FROM staff WHERE ssn > '5';
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.city := NEW.ssn; RETURN NEW; END $$;
CREATE TABLE touched (id integer, city text, ssn text);
CREATE TRIGGER touch BEFORE UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION touch();
INSERT INTO staff VALUES (1, 'Oslo', '{SECRET}', 2);
INSERT INTO keyed VALUES (1, '{SECRET}');
INSERT INTO plain VALUES (1, 'x');
INSERT INTO child VALUES (1, 'Oslo', '{SECRET}');
INSERT INTO touched VALUES (1, 'Oslo', '{SECRET}');
GRANT USAGE ON SCHEMA sealed_writes TO shop_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA sealed_writes TO shop_reader;
"""
LABELS = {"shop": {"ssn": ["sealed_writes.*.ssn"], "pay": ["sealed_writes.staff.pay"]}}
RULES = [
    {"id": "writers", "who": {"groups": ["writers"]}, "target": "shop", "allow": ["read", "insert", "update", "delete", "merge"]},
    {"id": "mask", "target": "shop", "mask": {"ssn": {"with": "redact"}, "pay": {"with": "nullify"}}},
]
REDACTED = "[redacted by exeat]"

# What runs and what it gives back; then what is refused beside it.
PERMITTED = {
    "INSERT INTO staff (id, ssn, city) VALUES (2, '1', 'x') RETURNING id, ssn, upper(ssn)": [(2, REDACTED, REDACTED)],
    "UPDATE staff SET ssn = '2' WHERE id = 1 RETURNING *": [(1, "Oslo", REDACTED, None)],
    "UPDATE staff SET city = 'Bergen', pay = 1 WHERE id = 1 RETURNING city": [("Bergen",)],
    "DELETE FROM staff WHERE id = 1 RETURNING ssn || city, staff": [(REDACTED, None)],
    "INSERT INTO keyed (id) VALUES (2) ON CONFLICT (id) DO NOTHING RETURNING id": [(2,)],
    "INSERT INTO plain VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET note = excluded.note RETURNING note": [("y",)],
    "WITH gone AS (DELETE FROM staff WHERE id = 1 RETURNING id, ssn) SELECT g.id, g.ssn, lower(ssn), g.* FROM gone g":
        [(1, REDACTED, REDACTED, 1, REDACTED)],
    "WITH w AS (UPDATE staff SET city = 'Tromso', pay = 0 RETURNING ssn) INSERT INTO plain SELECT 7, 'x' FROM w RETURNING id":
        [(7,)],
    "SELECT id, ssn FROM staff WHERE id = 1 FOR UPDATE": [(1, REDACTED)],
    "SELECT * FROM listed": [(1, REDACTED, "OSLO")],
    "SELECT number, note || town FROM listed WHERE town = 'OSLO'": [(1, REDACTED)],
    "SELECT id, ssn, tableoid IS NULL FROM (SELECT id, ssn, NULL::oid AS tableoid FROM parent) p": [(1, REDACTED, True)],
    "SELECT c.id, c.ssn FROM child c": [(1, REDACTED)],
    "INSERT INTO touched VALUES (2, 'x', 'y') RETURNING city": [("x",)],
}
REFUSED = {
    "INSERT INTO keyed VALUES (2, '1')": "masked_column_in_write",
    "UPDATE keyed SET ssn = '1' WHERE id = 1": "masked_column_in_write",
    "INSERT INTO keyed VALUES (1, 'x') ON CONFLICT (ssn) DO NOTHING": "masked_column_in_key",
    "UPDATE staff SET city = 'x' WHERE id = 1": "masked_column_in_write",
    "UPDATE staff SET city = ssn": "masked_column_in_write",
    "UPDATE staff SET id = 2 WHERE ssn = '1'": "masked_column_in_predicate",
    "INSERT INTO plain SELECT id, ssn FROM staff": "masked_column_in_write",
    "INSERT INTO plain SELECT number, note FROM listed": "masked_column_in_write",
    "WITH w AS (SELECT ssn FROM staff) UPDATE plain SET note = w.ssn FROM w": "masked_column_in_write",
    f"UPDATE staff SET ssn = '{REDACTED}' WHERE id = 1": "masked_column_in_write",
    "UPDATE touched SET id = 3": "masked_column_in_write",
    "SELECT id FROM chosen": "opaque_statement",
    "SELECT number FROM listed ORDER BY note": "masked_column_in_key",
    "SELECT id FROM parent WHERE ssn = '1'": "masked_column_in_predicate",
    "SELECT ctid FROM staff": "opaque_statement",
}


@pytest.fixture(scope="module")
def dsn(fresh_gateway, shop, trust):
    admin(shop, TABLES)
    text = dump({"version": 1, "labels": LABELS, "rules": RULES})
    for gateway in serving(fresh_gateway, shop, trust, "sealed-writes", text):
        yield gateway.dsn(trust.token("wendy", ["writers"]))


@pytest.fixture
def connection(dsn):
    with psycopg.connect(dsn.text()) as connection:
        connection.execute("SET search_path = sealed_writes")
        connection.commit()
        yield connection
        connection.rollback()


@pytest.mark.parametrize("sql", PERMITTED)
def test_what_tells_nothing_runs_and_comes_back_masked(connection, sql):
    rows = connection.execute(sql).fetchall()
    assert rows == PERMITTED[sql] and SECRET not in repr(rows)


@pytest.mark.parametrize("sql", REFUSED)
def test_what_would_tell_something_is_refused(connection, sql):
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        connection.execute(sql)
    assert f'"code":"{REFUSED[sql]}"' in caught.value.diag.message_detail
    assert SECRET not in str(caught.value)


def test_a_failing_check_does_not_quote_the_row(connection):
    with pytest.raises(psycopg.errors.CheckViolation) as caught:
        connection.execute("UPDATE staff SET city = 'x', pay = 9 WHERE id = 1")
    diag = caught.value.diag
    assert SECRET not in " ".join(str(part) for part in (diag.message_primary, diag.message_detail, diag.context))


def test_merge_writes_what_its_source_has(connection):
    sql = "MERGE INTO staff s USING plain p ON s.id = p.id WHEN MATCHED THEN UPDATE SET ssn = 'n' WHEN NOT MATCHED THEN INSERT (id) VALUES (p.id)"
    assert connection.execute(sql).rowcount == 1
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("MERGE INTO plain p USING staff s ON s.id = p.id WHEN MATCHED THEN UPDATE SET note = s.ssn")
