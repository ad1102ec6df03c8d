"""Another session's definition takes away what a name means while a statement waits for its lock: the server then takes
the next relation of that name, which may have sealed columns. No answer of that passes, and nothing of it is written."""

import psycopg
import pytest

from lib import wire
from lib.gateway import SHOP_SQL
from lib.postgres import psql
from lib.run import wait_until
from lib.yaml_text import dump
from streams import session, tags_of

LABELS = {"shop": {"ssn": ["public.customers.ssn"]}}
RULES = [
    {"id": "makers", "who": {"groups": ["makers"]}, "target": "shop", "allow": ["read", "insert", "ddl"]},
    {"id": "mask", "target": "shop", "mask": {"ssn": {"with": "redact"}}},
]
# Accepted with everything else when the gateway first sees the database, and nothing of it is labelled.
NEAR = """
    CREATE SCHEMA near AUTHORIZATION shop_reader;
    SET ROLE shop_reader;
    CREATE TABLE near.customers (id int, ssn text);
    CREATE TABLE near.notes (note text);
"""
QUESTION = "SELECT count(*) FROM customers WHERE ssn < '5'"
WAITS = "SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT count(*) FROM customers%'"
SENT = {
    "simple": wire.query(QUESTION),
    "extended": wire.parse(QUESTION) + wire.bind() + wire.describe() + wire.execute() + wire.SYNC,
}


@pytest.fixture(scope="module")
def serving(fresh_gateway, server, trust):
    shop = server.create_database("races")
    psql(shop, file=SHOP_SQL)
    psql(shop, NEAR)
    text = dump({"version": 1, "labels": LABELS, "rules": RULES})
    gateway = fresh_gateway("races", database="races", policy=text).trust(trust.entry())
    # As ever in production, and long enough for the test's own steps.
    del gateway.config["targets"]["shop"]["postgres"]["unclassified"]
    gateway.config["targets"]["shop"]["postgres"]["catalog"] = {"bounded": "60s"}
    gateway.start()
    yield gateway.dsn(trust.token("mia", ["makers"])), shop
    gateway.stop()


def heard_when_it_is_renamed(serving, sent, end):
    """What the client hears that asked while another session was taking the relation away."""
    dsn, shop = serving
    with session(dsn) as asking, session(dsn) as defining, psycopg.connect(shop.text(), autocommit=True) as watching:
        asking.cycle(wire.query("SET search_path = near, public"))
        assert b"0" in asking.cycle(sent)[-3][1]
        defining.cycle(wire.query("BEGIN"))
        assert tags_of(defining.cycle(wire.query("ALTER TABLE near.customers RENAME TO gone"))) == ["C", "Z"]
        asking.send(sent)
        wait_until("the question waits for the lock", lambda: watching.execute(WAITS).fetchall())
        defining.cycle(wire.query(end))
        heard = []
        try:
            heard = asking.receive_until("Z")
        except wire.Closed:
            pass
        if end == "COMMIT":
            assert tags_of(defining.cycle(wire.query("ALTER TABLE near.gone RENAME TO customers"))) == ["C", "Z"]
        return heard


@pytest.mark.parametrize("kind", SENT)
def test_no_answer_about_a_relation_that_took_the_place_of_another(kind, serving):
    assert "D" not in tags_of(heard_when_it_is_renamed(serving, SENT[kind], "COMMIT"))


@pytest.mark.parametrize("kind", SENT)
def test_a_definition_that_is_taken_back_does_not_matter(kind, serving):
    heard = heard_when_it_is_renamed(serving, SENT[kind], "ROLLBACK")
    assert [body[-1:] for tag, body in heard if tag == "D"] == [b"0"]


@pytest.mark.parametrize("write", ["INSERT INTO near.notes SELECT ssn FROM {}", "CREATE TEMP TABLE mine AS SELECT ssn FROM {}"])
def test_what_is_written_cannot_be_called_back_so_names_must_be_certain(write, serving):
    with psycopg.connect(serving[0].text(), autocommit=True) as connection:
        connection.execute("SET search_path = near, public")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="if the one it means went away"):
            connection.execute(write.format("customers"))
        connection.execute(write.format("near.customers"))
