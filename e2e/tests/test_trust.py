"""`trust` and `declassify`: code of the database that the operator vouches for by name runs, for as long as the name
stands for the same definition; row-security policies that look at nothing sealed need no word of his."""

import json
import os
import subprocess

import psycopg
import pytest

from lib.gateway import SHOP_SQL, binary
from lib.postgres import psql
from lib.run import wait_until
from streams import TABLES, admin, writers_policy

CODE = """
DROP SCHEMA IF EXISTS vouched CASCADE;
CREATE SCHEMA vouched;
CREATE FUNCTION vouched.slug(txt text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN replace(lower(txt), '' '', ''-''); END';
CREATE FUNCTION vouched.other(txt text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN txt; END';
CREATE VIEW vouched.stats AS
  SELECT city, count(*) AS n, count(DISTINCT ssn) AS people, min(ssn) AS first FROM customers WHERE ssn <> '' GROUP BY city;
CREATE VIEW vouched.plain AS SELECT city, min(ssn) AS first FROM customers WHERE ssn <> '' GROUP BY city;
CREATE TABLE vouched.kept (id integer, ssn text, city text);
CREATE TABLE vouched.log (id integer);
CREATE FUNCTION vouched.log() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS
  'BEGIN INSERT INTO vouched.log VALUES (NEW.id); RETURN NEW; END';
CREATE TRIGGER log BEFORE INSERT ON vouched.kept FOR EACH ROW EXECUTE FUNCTION vouched.log();
CREATE TABLE vouched.tenants (id integer, ssn text, tenant name);
INSERT INTO vouched.tenants VALUES (1, '111-22-3333', 'shop_reader'), (2, '444-55-6666', 'postgres');
ALTER TABLE vouched.tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON vouched.tenants USING (tenant = CURRENT_USER);
CREATE TABLE vouched.told (id integer, ssn text);
ALTER TABLE vouched.told ENABLE ROW LEVEL SECURITY;
CREATE POLICY known ON vouched.told USING (ssn <> '');
INSERT INTO vouched.told VALUES (1, '111-22-3333');
CREATE TABLE vouched.untold (id integer, ssn text);
ALTER TABLE vouched.untold ENABLE ROW LEVEL SECURITY;
CREATE POLICY known ON vouched.untold USING (ssn <> '');
GRANT USAGE ON SCHEMA vouched TO PUBLIC;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA vouched TO shop_reader;
"""

TRUST = {
    "functions": ["vouched.slug(text)"],
    "views": ["vouched.stats"],
    "triggers": ["vouched.kept.log"],
    "policies": ["vouched.told.known"],
}
LABELS = ["vouched.kept.ssn", "vouched.tenants.ssn", "vouched.told.ssn", "vouched.untold.ssn"]


@pytest.fixture(scope="module")
def vouching(fresh_gateway, shop, trust):
    admin(shop, TABLES)
    admin(shop, CODE)
    text = writers_policy().replace('"public.customers.ssn"', ", ".join(f'"{name}"' for name in ["public.customers.ssn", *LABELS]))
    assert "vouched.told.ssn" in text
    made = fresh_gateway("vouching", policy=text).trust(trust.entry())
    made.config["targets"]["shop"]["postgres"].update(trust=TRUST, declassify=["vouched.stats.people"])
    made.start(level="debug")
    yield made.dsn(trust.token("wendy", ["writers"]))
    made.stop()
    admin(shop, "DROP SCHEMA vouched CASCADE")


def shown(dsn, sql):
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        return connection.execute(sql).fetchall()


def refused(dsn, sql):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        shown(dsn, sql)


def test_a_trusted_function_runs_over_what_is_not_sealed(vouching, shop):
    sql = "SELECT vouched.slug(city) FROM customers ORDER BY id"
    assert shown(vouching, sql) == admin(shop, sql)
    refused(vouching, "SELECT vouched.slug(ssn) FROM customers")
    refused(vouching, "SELECT vouched.other(city) FROM customers")


def test_a_trusted_view_is_read_and_its_sealed_columns_stay_masked(vouching, shop):
    rows = shown(vouching, "SELECT city, n, first FROM vouched.stats ORDER BY city")
    assert [row[:2] for row in rows] == [row[:2] for row in admin(shop, "SELECT city, n FROM vouched.stats ORDER BY city")]
    assert rows and all(row[2] == "[redacted by exeat]" for row in rows)
    refused(vouching, "SELECT city FROM vouched.plain")
    refused(vouching, "SELECT city FROM vouched.stats ORDER BY first")


def test_provenance_stops_at_a_declassified_column(vouching, shop):
    sql = "SELECT people FROM vouched.stats WHERE people > 0 ORDER BY people"
    assert shown(vouching, sql) == admin(shop, sql)


def test_a_write_runs_a_trusted_trigger(vouching, shop):
    assert shown(vouching, "INSERT INTO vouched.kept VALUES (7, 'x', 'y') RETURNING id, ssn") == [(7, "[redacted by exeat]")]
    assert (7,) in admin(shop, "SELECT id FROM vouched.log")


def test_row_security_over_what_is_not_sealed_needs_no_trust(vouching):
    assert shown(vouching, "SELECT id, ssn FROM vouched.tenants") == [(1, "[redacted by exeat]")]


def test_row_security_over_what_is_sealed_does(vouching):
    assert shown(vouching, "SELECT id FROM vouched.told") == [(1,)]
    refused(vouching, "SELECT id FROM vouched.untold")
    refused(vouching, "INSERT INTO vouched.untold VALUES (1)")


def test_another_definition_is_not_trusted(vouching, shop):
    sql = "SELECT vouched.slug('A b')"
    assert shown(vouching, sql) == [("a-b",)]
    before = admin(shop, "SELECT pg_get_functiondef('vouched.slug(text)'::regprocedure)")[0][0]
    admin(shop, "CREATE OR REPLACE FUNCTION vouched.slug(txt text) RETURNS text LANGUAGE plpgsql AS "
          "'BEGIN RETURN (SELECT ssn FROM customers LIMIT 1); END'")

    def is_refused():
        try:
            shown(vouching, sql)
        except psycopg.errors.InsufficientPrivilege:
            return True
        return False

    wait_until("the function is not trusted any more", is_refused)
    admin(shop, before)
    wait_until("it is what it was", lambda: not is_refused())


def test_a_definition_exchanged_while_the_gateway_was_down_is_noticed(fresh_gateway, server, trust):
    name = "pins_across_restarts"
    database = server.create_database(name)
    psql(database, file=SHOP_SQL)
    psql(database, "CREATE FUNCTION public.calm(t text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN t; END'")
    gateway = fresh_gateway(name, database=name).trust(trust.entry())
    gateway.config["console"] = {"roles": {"admin": ["dpo"]}}
    gateway.config["targets"]["shop"]["postgres"]["trust"] = {"functions": ["public.calm(text)"]}
    dsn = gateway.start().dsn(trust.token("agent-7", ["agents"]))
    sql = "SELECT calm('x')"
    assert shown(dsn, sql) == [("x",)]
    gateway.stop()
    psql(database, "CREATE OR REPLACE FUNCTION public.calm(t text) RETURNS text LANGUAGE plpgsql AS "
         "'BEGIN RETURN (SELECT ssn FROM customers LIMIT 1); END'")
    gateway.start()
    refused(dsn, sql)
    wait_until("readiness tells", lambda: "public.calm(text) has another definition" in str(gateway.readiness()))

    def discover(*arguments):
        environment = {**os.environ, "EXEAT_URL": gateway.console_url(), "EXEAT_TOKEN": trust.token("dana", ["dpo"])}
        done = subprocess.run([binary(), "discover", *arguments, "--json"], env=environment, capture_output=True, text=True,
                              timeout=60, check=True)
        return json.loads(done.stdout)

    found = discover()
    assert any("public.calm(text) has another definition" in text for text in found["findings"]) and found["definitions"] == 0
    refused(dsn, sql)
    with psycopg.connect(dsn.text(), autocommit=True) as open_session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            open_session.execute(sql)
        assert discover("--accept")["definitions"] == 1
        assert len(open_session.execute(sql).fetchall()) == 1, "an open session knows at once"
    assert not any("another definition" in text for text in discover()["findings"])
    gateway.stop()
    gateway.start()
    assert len(shown(dsn, sql)) == 1
    gateway.stop()
