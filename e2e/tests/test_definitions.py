"""Definitions in sealed sessions: what a session makes of its own it may use at once; nothing sealed gets into it, and
what carries a label is not altered. The database is one that the gateway knows: what is new in it is sealed."""

import psycopg
import pytest

from lib.gateway import SHOP_SQL
from lib.postgres import psql
from lib.yaml_text import dump
from spine import REDACTED

LABELS = {"shop": {"email": ["public.customers.email"], "ssn": ["public.customers.ssn"]}}
WORK = ["read", "insert", "update", "delete", "ddl"]
RULES = [
    {"id": "makers", "who": {"groups": ["makers"]}, "target": "shop", "allow": WORK},
    {"id": "mask", "target": "shop", "mask": {"email": {"with": "redact"}, "ssn": {"with": "redact"}}},
]

# One after the other in one session; the last one's rows.
OWN = {
    "a table": [
        "CREATE TABLE work (id serial PRIMARY KEY, note text DEFAULT 'x', CHECK (id > 0))",
        "CREATE INDEX ON work (note)",
        "ALTER TABLE work ADD COLUMN w int DEFAULT 5",
        "COMMENT ON TABLE work IS 'mine'",
        "INSERT INTO work (id, note) VALUES (1, 'mine')",
        "ANALYZE work",
        "SELECT * FROM work",
        [(1, "mine", 5)],
    ],
    "a temporary table": [
        "CREATE TEMP TABLE work (id int, note text)",
        "INSERT INTO work VALUES (1, 'mine')",
        "SELECT * FROM work",
        [(1, "mine")],
    ],
    "a table from a query": [
        "CREATE TABLE work AS SELECT id, city FROM customers WHERE id = 1",
        "SELECT id FROM work",
        [(1,)],
    ],
    "a temporary table from SELECT INTO": [
        "SELECT id, 'x' AS note INTO TEMP work FROM customers WHERE id = 1",
        "SELECT note, id FROM work",
        [("x", 1)],
    ],
    "a view": [
        "CREATE VIEW work AS SELECT id, 'x' AS note FROM customers WHERE id < 3",
        "SELECT * FROM work ORDER BY id",
        [(1, "x"), (2, "x")],
    ],
    "a materialized view": [
        "CREATE MATERIALIZED VIEW work AS SELECT count(*) > 0 AS some FROM customers",
        "REFRESH MATERIALIZED VIEW work",
        "SELECT * FROM work",
        [(True,)],
    ],
    "a renamed table": [
        "CREATE TABLE was (note text)",
        "ALTER TABLE was RENAME TO work",
        "INSERT INTO work VALUES ('mine')",
        "SELECT note FROM work",
        [("mine",)],
    ],
    "a schema and an enum": [
        "CREATE SCHEMA desk",
        "CREATE TYPE desk.mood AS ENUM ('a', 'b')",
        "CREATE TABLE desk.work (mood desk.mood)",
        "INSERT INTO desk.work VALUES ('a')",
        "SELECT mood FROM desk.work",
        [("a",)],
    ],
}

KINDS = {"r": "TABLE", "v": "VIEW", "m": "MATERIALIZED VIEW"}

REFUSED = {
    "CREATE TABLE leak AS SELECT ssn FROM customers": "masked_column_in_write",
    "CREATE TEMP TABLE leak AS SELECT upper(email) AS e FROM customers": "masked_column_in_write",
    "SELECT ssn INTO TEMP leak FROM customers": "masked_column_in_write",
    "CREATE VIEW leak AS SELECT ssn FROM customers": "masked_column_in_write",
    "CREATE MATERIALIZED VIEW leak AS SELECT ssn FROM customers": "masked_column_in_write",
    "CREATE TABLE leak AS SELECT id FROM customers WHERE ssn > '5'": "masked_column_in_predicate",
    "CREATE TABLE leak (id int REFERENCES customers)": "capability_missing",
    "CREATE TABLE leak () INHERITS (customers)": "capability_missing",
    "ALTER TABLE customers RENAME ssn TO x": "capability_missing",
    "ALTER TABLE customers RENAME TO x": "capability_missing",
    "ALTER TABLE customers ADD CHECK (ssn > '5')": "capability_missing",
    "CREATE UNIQUE INDEX ON customers (left(ssn, 1))": "capability_missing",
    "DROP TABLE customers": "capability_missing",
    "ANALYZE customers": "capability_missing",
    "CREATE TABLE leak (a text DEFAULT set_config('search_path', 'x', false))": "opaque_statement",
}


@pytest.fixture(scope="module")
def serving(fresh_gateway, server, trust):
    shop = server.create_database("definitions")
    psql(shop, file=SHOP_SQL)
    psql(shop, "GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT CREATE, TEMP ON DATABASE definitions TO PUBLIC")
    psql(shop, "CREATE VIEW people AS SELECT id, ssn FROM customers; GRANT SELECT ON people TO PUBLIC")
    text = dump({"version": 1, "labels": LABELS, "rules": RULES})
    gateway = fresh_gateway("definitions", database="definitions", policy=text).trust(trust.entry())
    del gateway.config["targets"]["shop"]["postgres"]["unclassified"]
    gateway.start()
    yield gateway.dsn(trust.token("mia", ["makers"])), shop
    gateway.stop()


@pytest.fixture
def place(serving):
    dsn, shop = serving
    yield dsn
    with psycopg.connect(shop.text(), autocommit=True) as owner:
        found = owner.execute("SELECT relkind FROM pg_class WHERE oid = to_regclass('public.work')").fetchall()
        for (kind,) in found:
            owner.execute(f"DROP {KINDS[kind]} public.work")
        owner.execute("DROP SCHEMA IF EXISTS desk CASCADE")


@pytest.fixture
def connection(place):
    with psycopg.connect(place.text(), autocommit=True) as connection:
        # The first session takes the baseline.
        assert connection.execute("SELECT ssn FROM customers WHERE id = 1").fetchall() == [(REDACTED,)]
        yield connection


@pytest.mark.parametrize("what", OWN)
def test_a_session_uses_what_it_made(connection, what):
    *statements, rows = OWN[what]
    for sql in statements:
        cursor = connection.execute(sql)
    assert cursor.fetchall() == rows


@pytest.mark.parametrize("sql", REFUSED)
def test_nothing_sealed_gets_into_a_definition_and_no_label_is_moved(connection, sql):
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        connection.execute(sql)
    assert f'"code":"{REFUSED[sql]}"' in caught.value.diag.message_detail


def test_another_session_sees_what_nobody_accepted_sealed(connection, place):
    connection.execute("CREATE TABLE work (note text)")
    connection.execute("INSERT INTO work VALUES ('mine')")
    with psycopg.connect(place.text()) as other:
        assert other.execute("SELECT note FROM work").fetchall() == [(REDACTED,)]
    assert connection.execute("SELECT note FROM work").fetchall() == [("mine",)]


def test_a_definition_that_failed_proves_nothing(connection, place):
    """Somebody else's table of that name is theirs, whether or not the gateway knew of it."""
    with psycopg.connect(place.text(), autocommit=True) as other:
        other.execute("CREATE TABLE work (note text)")
        other.execute("INSERT INTO work VALUES ('theirs')")
    with pytest.raises(psycopg.errors.DuplicateTable):
        connection.execute("CREATE TABLE work (note text)")
    connection.execute("CREATE TABLE IF NOT EXISTS work (note text)")
    assert connection.execute("SELECT note FROM work").fetchall() == [(REDACTED,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DROP TABLE work")


@pytest.mark.parametrize("what", OWN)
def test_a_transaction_uses_what_it_made(connection, what):
    *statements, rows = OWN[what]
    connection.execute("BEGIN")
    for sql in statements:
        cursor = connection.execute(sql)
    assert cursor.fetchall() == rows
    connection.execute("COMMIT")
    assert connection.execute(statements[-1]).fetchall() == rows


def test_names_mean_what_the_transaction_made_of_them_and_no_longer(connection):
    """On this connection alone, and popped with the savepoint or the transaction."""
    sealed = "SELECT ssn FROM customers WHERE id = 1"
    connection.execute("BEGIN")
    connection.execute("CREATE TEMP TABLE orders (id int, ssn text)")
    connection.execute("SAVEPOINT s")
    connection.execute("CREATE TEMP TABLE customers (id int, ssn text)")
    connection.execute("INSERT INTO customers VALUES (1, 'mine')")
    assert connection.execute(sealed).fetchall() == [("mine",)]
    connection.execute("ROLLBACK TO s")
    assert connection.execute(sealed).fetchall() == [(REDACTED,)]
    assert connection.execute("SELECT * FROM orders").fetchall() == []
    connection.execute("ALTER TABLE orders RENAME TO customers")
    assert connection.execute(sealed).fetchall() == []
    connection.execute("ROLLBACK")
    assert connection.execute(sealed).fetchall() == [(REDACTED,)]
    assert connection.execute("SELECT count(*) > 0 FROM orders").fetchall() == [(True,)]


def test_the_path_of_a_transaction_leads_into_the_schema_it_made(connection):
    connection.execute("BEGIN")
    connection.execute("CREATE SCHEMA desk")
    connection.execute("CREATE TABLE desk.customers (ssn text)")
    connection.execute("SET LOCAL search_path = desk, public")
    # What is written is written: a name that would mean a sealed relation, were this one gone, says its schema.
    connection.execute("SAVEPOINT s")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("INSERT INTO customers VALUES ('mine')")
    connection.execute("ROLLBACK TO s")
    connection.execute("INSERT INTO desk.customers VALUES ('mine')")
    assert connection.execute("SELECT ssn FROM customers").fetchall() == [("mine",)]
    assert connection.execute("SELECT ssn FROM public.customers WHERE id = 1").fetchall() == [(REDACTED,)]
    connection.execute("COMMIT")
    assert connection.execute("SELECT ssn FROM customers WHERE id = 1").fetchall() == [(REDACTED,)]


def test_a_view_of_the_transaction_is_what_it_stands_on(connection):
    """Definitions are printed under the session's own search path there, and mean what they say."""
    connection.execute("BEGIN")
    connection.execute("CREATE VIEW work AS SELECT id FROM people")
    assert connection.execute("SELECT ssn FROM people WHERE id = 1").fetchall() == [(REDACTED,)]
    assert connection.execute("SELECT id FROM work WHERE id = 1").fetchall() == [(1,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("CREATE VIEW leak AS SELECT ssn FROM people")
    connection.execute("ROLLBACK")


@pytest.mark.parametrize("take_back", ["ROLLBACK", "error", "PREPARE"])
def test_what_was_taken_back_proves_nothing(connection, serving, take_back):
    """Of its name there may be somebody else's by then."""
    _, shop = serving
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE work (note text)")
    if take_back == "error":
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
    if take_back == "PREPARE":
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("PREPARE TRANSACTION 'x'")
    connection.execute("ROLLBACK")
    psql(shop, "CREATE TABLE work (note text); INSERT INTO work VALUES ('theirs'); GRANT SELECT ON work TO PUBLIC")
    assert connection.execute("SELECT note FROM work").fetchall() == [(REDACTED,)]


def test_under_an_older_snapshot_nothing_follows_that_resolves_names(connection):
    """What is read there is older than what names mean."""
    connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    connection.execute("CREATE TABLE work (note text)")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        connection.execute("SELECT count(*) FROM orders")
    assert "READ COMMITTED" in caught.value.diag.message_primary
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT count(*) > 0 FROM orders").fetchall() == [(True,)]


def test_what_others_commit_meanwhile_is_seen_in_the_transaction(connection, serving):
    _, shop = serving
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE work (note text)")
    assert connection.execute("SELECT count(*) FROM work").fetchall() == [(0,)]
    psql(shop, "CREATE TABLE theirs (note text); INSERT INTO theirs VALUES ('x'); GRANT SELECT ON theirs TO PUBLIC")
    try:
        assert connection.execute("SELECT note FROM theirs").fetchall() == [(REDACTED,)]
        connection.execute("ROLLBACK")
    finally:
        psql(shop, "DROP TABLE theirs")


def test_a_pipelined_statement_is_analysed_after_the_definition(connection):
    """Sent ahead: what the definition made must be known all the same."""
    with connection.pipeline():
        connection.execute("CREATE TABLE work (note text)", prepare=False)
        cursor = connection.execute("SELECT count(*) FROM work", prepare=False)
    assert cursor.fetchall() == [(0,)]


def test_a_definition_of_the_extended_protocol_is_the_sessions_own_too(connection):
    """Its parameters make it one; and within one batch the transaction has not ended."""
    connection.execute("CREATE TABLE work AS SELECT %s AS note", ["mine"])
    assert connection.execute("SELECT note FROM work WHERE note = %s", ["mine"]).fetchall() == [("mine",)]
    connection.execute("DROP TABLE work")
    with connection.pipeline():
        connection.execute("CREATE TABLE work (note text)", prepare=False)
        connection.execute("INSERT INTO work VALUES (%s)", ["x"], prepare=False)
        cursor = connection.execute("SELECT note FROM work", prepare=False)
    assert cursor.fetchall() == [("x",)]


@pytest.mark.parametrize("discard", ["DISCARD TEMP", "DISCARD ALL"])
def test_names_of_discarded_tables_mean_what_they_hid(discard, serving):
    with psycopg.connect(serving[0].text(), autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE customers (id int, ssn text)")
        assert connection.execute("SELECT count(*) FROM customers WHERE ssn < '5'").fetchall() == [(0,)]
        connection.execute(discard)
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="sealed for you"):
            connection.execute("SELECT count(*) FROM customers WHERE ssn < '5'")
