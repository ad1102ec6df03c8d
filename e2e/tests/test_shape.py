"""Statements refused for their shape: stars where columns are sealed, writes without a condition."""

import json

import psycopg
import pytest

from lib.gateway import SHOP_SQL
from lib.postgres import psql
from lib.yaml_text import dump

POLICY = dump({
    "version": 1,
    "labels": {"shop": {"ssn": ["public.customers.ssn"]}},
    "rules": [
        {"id": "work", "target": "shop", "allow": ["read", "update", "delete"]},
        {"id": "seal", "target": "shop", "who": {"except": {"groups": ["dpo"]}}, "mask": {"ssn": {"with": "redact"}}},
        {"id": "columns", "target": "shop", "who": {"groups": ["agents"]}, "select_star": "deny"},
        {"id": "cleaning", "target": "shop", "who": {"groups": ["dpo"]}, "unbounded_writes": "allow"},
    ],
})


@pytest.fixture(scope="module")
def shaped(server, trust, fresh_gateway):
    database = server.create_database("shaped")
    psql(database, file=SHOP_SQL)
    psql(database, "GRANT UPDATE, DELETE ON customers TO shop_reader, shop_dpo; GRANT SELECT ON customers TO shop_dpo;"
         "CREATE VIEW cities AS SELECT id, city FROM customers; GRANT SELECT, UPDATE, DELETE ON cities TO shop_reader, shop_dpo")
    return fresh_gateway("shaped", database="shaped").policy(POLICY).trust(trust.entry()).start()


@pytest.fixture
def connected(shaped, trust):
    opened = []

    def connect(group):
        dsn = shaped.dsn(trust.token("someone", [group]))
        opened.append(psycopg.connect(dsn.text(), autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def refused(connection, sql):
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        connection.execute(sql)
    return json.loads(caught.value.diag.message_detail)


@pytest.mark.parametrize("sql", [
    "SELECT * FROM customers", "SELECT c.* FROM customers c", "TABLE customers", "SELECT row_to_json(c) FROM customers c",
    "COPY customers TO STDOUT", "DECLARE c CURSOR FOR SELECT * FROM customers", "SELECT * FROM (SELECT * FROM customers) s",
])
def test_columns_are_to_be_named_where_one_is_sealed(connected, sql):
    agent = connected("agents")
    told = refused(agent, sql)
    assert (told["code"], told["rule"]) == ("select_star", "columns")
    assert told["object"]["relation"] == "public.customers"
    assert agent.execute("SELECT id, ssn FROM customers ORDER BY id LIMIT 1").fetchone() == (1, "[redacted by exeat]")
    assert len(agent.execute("SELECT * FROM orders LIMIT 1").fetchone()) > 1


def test_who_sees_everything_may_say_star(connected):
    assert "redacted" not in str(connected("dpo").execute("SELECT * FROM customers").fetchall())


@pytest.mark.parametrize("condition", ["", " WHERE true", " WHERE id = id", " WHERE id = 1 OR 1 = 1"])
@pytest.mark.parametrize("write", ["UPDATE customers SET city = 'x'", "DELETE FROM customers", "DELETE FROM cities"])
def test_a_write_says_which_rows(connected, shaped, write, condition):
    agent = connected("agents")
    told = refused(agent, write + condition)
    assert told["code"] == "unbounded_write" and "rule" not in told and "WHERE" in told["suggestion"]
    assert agent.execute(write + " WHERE id = %s", [-1]).rowcount == 0


def test_a_rule_lifts_it(connected):
    officer = connected("dpo")
    with officer.transaction(force_rollback=True):
        assert officer.execute("UPDATE customers SET city = 'x'").rowcount > 1
