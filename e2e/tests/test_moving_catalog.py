"""The catalog changes while a statement waits: what means the same goes on, what does not ends before a byte of it."""

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin, serving, session, tags_of


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    yield from serving(fresh_gateway, shop, trust, "moving")


@pytest.fixture
def writer(gateway, trust, shop):
    admin(shop, """
        CREATE SCHEMA moving;
        CREATE TABLE moving.docks (id integer, city text, ssn text);
        CREATE TABLE moving.others (id integer);
        GRANT USAGE ON SCHEMA moving TO shop_reader;
        GRANT SELECT ON ALL TABLES IN SCHEMA moving TO shop_reader;
        INSERT INTO moving.docks VALUES (1, 'Oslo', '123-45-6789');
    """)
    yield gateway.dsn(trust.token("wendy", ["writers"]))
    admin(shop, "DROP SCHEMA moving CASCADE")


LONG = "SELECT now() - query_start > interval '1500 ms' FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
SAME = [
    "CREATE TABLE moving.another (id integer)",
    "ALTER TABLE moving.others ADD COLUMN more text",
    "CREATE FUNCTION moving.unrelated() RETURNS int LANGUAGE sql AS 'SELECT 1'",
]
DIFFERENT = [
    "ALTER TABLE moving.docks RENAME COLUMN city TO town",
    "ALTER TABLE moving.docks RENAME city TO x; ALTER TABLE moving.docks RENAME ssn TO city",
    # There and back again: it ran under a definition that nobody analysed.
    "ALTER TABLE moving.docks RENAME city TO x; ALTER TABLE moving.docks RENAME x TO city",
    "CREATE FUNCTION public.upper(text) RETURNS text LANGUAGE sql AS 'SELECT ''x''::text'",
]
STATEMENTS = {
    "simple": lambda sql: wire.query(sql),
    "extended": lambda sql: wire.parse(sql) + wire.bind() + wire.describe() + wire.execute() + wire.SYNC,
}


def waits_for(shop, dsn, sent, change):
    """What the client hears that sent a statement, waited for a lock, and saw the catalog change before it got it."""
    with psycopg.connect(shop.admin.text()) as holding, session(dsn) as connection:
        connection.cycle(wire.query("SELECT 1"))
        holding.execute("LOCK TABLE moving.docks IN ACCESS EXCLUSIVE MODE")
        connection.send(sent)
        wait_until("the statement waits", lambda: (True,) in admin(shop, LONG))
        holding.execute(change)
        holding.commit()
        received = []
        try:
            received = connection.receive_until("Z")
            received += connection.cycle(wire.query("SELECT 7"))
        except wire.Closed:
            pass
        return received


@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.parametrize("change", SAME)
def test_a_change_of_something_else_does_not_matter(change, kind, writer, shop):
    heard = waits_for(shop, writer, STATEMENTS[kind]("SELECT id, upper(city) FROM moving.docks"), change)
    tags = tags_of(heard)
    assert tags[-4:] == ["T", "D", "C", "Z"] and tags.count("D") == 2 and b"OSLO" in b"".join(body for _, body in heard)


@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.parametrize("change", DIFFERENT)
def test_a_change_of_what_it_reads_releases_nothing(change, kind, writer, shop):
    try:
        heard = waits_for(shop, writer, STATEMENTS[kind]("SELECT id, upper(city) FROM moving.docks"), change)
    finally:
        admin(shop, "DROP FUNCTION IF EXISTS public.upper(text)")
    tags = tags_of(heard)
    assert "D" not in tags[: tags.index("Z")] if "Z" in tags else "D" not in tags
    assert b"123-45" not in b"".join(body for _, body in heard)


SEALING = {
    "version": 1,
    "labels": {"shop": {"ssn": ["moving.docks.ssn"]}},
    "rules": [
        {"id": "writers", "who": {"groups": ["writers"]}, "target": "shop", "allow": ["read"]},
        {"id": "mask", "target": "shop", "mask": {"ssn": {"with": "redact"}}},
    ],
}
HARMLESS = "CREATE OR REPLACE VIEW moving.board AS SELECT 'none'::text AS line"
TELLING = "CREATE OR REPLACE VIEW moving.board AS SELECT ssn AS line FROM moving.docks"


@pytest.mark.parametrize("kind", STATEMENTS)
@pytest.mark.parametrize("catalog", ["strict", {"bounded": "60s"}], ids=["strict", "bounded"])
def test_strictly_no_answer_begins_on_an_older_catalog(catalog, kind, writer, fresh_gateway, shop, trust):
    """A view is replaced between the statement's analysis and its execution, well within any bound."""
    admin(shop, f"{HARMLESS}; GRANT SELECT ON moving.board TO shop_reader")
    made = fresh_gateway(f"truth-{kind}-{catalog == 'strict'}", policy=dump(SEALING)).trust(trust.entry())
    made.config["targets"]["shop"]["postgres"]["catalog"] = catalog
    made.start()
    sent = STATEMENTS[kind]("SELECT 'is ' || line FROM moving.board")
    try:
        with session(made.dsn(trust.token("wendy", ["writers"]))) as connection:
            before = b"".join(body for _, body in connection.cycle(sent))
            admin(shop, TELLING)
            connection.send(sent)
            after = b""
            try:
                after = b"".join(body for _, body in connection.receive_until("Z"))
            except wire.Closed:
                pass
    finally:
        made.stop()
    assert b"is none" in before
    assert (b"123-45-6789" in after) == (catalog != "strict")

