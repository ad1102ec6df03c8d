"""Functions in LANGUAGE sql are what their bodies do: over unsealed data they answer as the server does, what they
give back of sealed columns is masked, what they compare with one is refused, and so is what cannot be followed."""

import contextlib

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from streams import session

FUNCTIONS = """
DROP SCHEMA IF EXISTS bodies CASCADE;
CREATE SCHEMA bodies;
GRANT USAGE ON SCHEMA bodies TO PUBLIC;
CREATE FUNCTION bodies.orders_of(customer int) RETURNS bigint STABLE LANGUAGE sql AS
  'SELECT count(*) FROM orders WHERE customer_id = customer';
CREATE FUNCTION bodies.orders_bound(customer int) RETURNS bigint LANGUAGE sql
  BEGIN ATOMIC SELECT count(*) FROM orders WHERE customer_id = customer; END;
CREATE FUNCTION bodies.twice(n int) RETURNS int LANGUAGE sql RETURN n * 2;
CREATE FUNCTION bodies.ids() RETURNS SETOF int LANGUAGE sql AS 'SELECT id FROM customers ORDER BY id';
CREATE FUNCTION bodies.ssn_of(int) RETURNS text LANGUAGE sql AS 'SELECT ssn FROM customers WHERE id = $1';
CREATE FUNCTION bodies.one(int) RETURNS customers LANGUAGE sql AS 'SELECT * FROM customers WHERE id = $1';
CREATE FUNCTION bodies.found(town text) RETURNS TABLE (ref int, ident text) LANGUAGE sql AS
  'SELECT id, ssn FROM customers WHERE city = town ORDER BY id';
CREATE TABLE bodies.bent AS SELECT 'x'::text AS note;
CREATE TABLE IF NOT EXISTS public.bent AS SELECT 'x'::text AS note;
CREATE FUNCTION bodies.one_as_owner(int) RETURNS customers SECURITY DEFINER LANGUAGE sql AS 'SELECT * FROM customers WHERE id = $1';
CREATE FUNCTION bodies.orders_as_owner(customer int) RETURNS bigint SECURITY DEFINER LANGUAGE sql AS
  'SELECT count(*) FROM orders WHERE customer_id = customer';
CREATE FUNCTION bodies.bent_as_owner() RETURNS text SECURITY DEFINER LANGUAGE sql AS 'SELECT note FROM bent';
CREATE FUNCTION bodies.shout(txt text) RETURNS text LANGUAGE sql AS 'SELECT upper(txt) || $1';
CREATE FUNCTION bodies.owner(text) RETURNS int LANGUAGE sql AS 'SELECT id FROM customers WHERE ssn = $1';
CREATE FUNCTION bodies.sorted() RETURNS int LANGUAGE sql AS 'SELECT id FROM customers ORDER BY ssn LIMIT 1';
CREATE FUNCTION bodies.digits(txt text) RETURNS bigint LANGUAGE sql AS 'SELECT replace(txt, ''-'', '''')::bigint';
CREATE FUNCTION bodies.is_known(txt text) RETURNS text STRICT LANGUAGE sql AS 'SELECT ''known''';
CREATE FUNCTION bodies.procedural(n int) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN n; END';
CREATE FUNCTION bodies.indirect(n int) RETURNS text LANGUAGE sql AS 'SELECT bodies.procedural(n)';
CREATE FUNCTION bodies.counts_on(n int) RETURNS int LANGUAGE sql AS 'UPDATE customers SET city = city WHERE false; SELECT 1';
CREATE FUNCTION bodies.moves() RETURNS text LANGUAGE sql AS 'SELECT set_config(''search_path'', ''bodies'', false)';
"""

SAME = [
    "SELECT bodies.orders_of(1), bodies.orders_of(2)",
    "SELECT bodies.orders_bound(1), bodies.twice(21)",
    "SELECT id, bodies.orders_of(id) FROM customers WHERE bodies.orders_of(id) > 0 ORDER BY id",
    "SELECT * FROM bodies.ids()",
    "SELECT i FROM bodies.ids() AS i WHERE i < 3",
    "SELECT c.id, o FROM customers c, LATERAL bodies.orders_of(c.id) o ORDER BY c.id",
    "SELECT bodies.shout(city) FROM customers ORDER BY id",
    "SELECT ref FROM bodies.found((SELECT city FROM customers WHERE id = 1))",
    "SELECT id, city FROM bodies.one(1)",
    "SELECT id, city, bodies.orders_as_owner(id) FROM bodies.one_as_owner(1)",
]

MASKED = [
    "SELECT bodies.ssn_of(1)",
    "SELECT bodies.one(1)",
    "SELECT ssn, email, phone FROM bodies.one(1)",
    "SELECT ssn, email, phone FROM bodies.one_as_owner(1)",
    "SELECT ident FROM bodies.found((SELECT city FROM customers WHERE id = 1))",
    "SELECT bodies.shout(ssn) FROM customers",
    "SELECT s FROM (SELECT bodies.ssn_of(id) AS s FROM customers) x",
]

REFUSED = [
    "SELECT bodies.owner('137')",
    "SELECT id FROM customers WHERE bodies.owner('137') = id",
    "SELECT bodies.sorted()",
    "SELECT bodies.digits(ssn) FROM customers",
    "SELECT bodies.is_known(ssn) FROM customers",
    "SELECT id FROM customers WHERE bodies.shout(ssn) = 'X'",
    "SELECT id FROM customers WHERE bodies.ssn_of(id) LIKE '1%'",
    "SELECT id FROM customers ORDER BY bodies.ssn_of(id)",
    "SELECT bodies.procedural(1)",
    "SELECT bodies.indirect(1)",
    "SELECT bodies.counts_on(1)",
    "SELECT bodies.moves()",
    "SELECT bodies.bent_as_owner()",
    "SELECT id FROM bodies.one_as_owner(1) WHERE ssn = '137'",
]


@pytest.fixture(scope="module")
def functions(shop):
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin:
        admin.execute(FUNCTIONS)
        values = admin.execute("SELECT ssn, email, phone FROM customers").fetchall()
        yield {value.lower() for row in values for value in row if value}
        admin.execute("DROP SCHEMA bodies CASCADE; DROP TABLE public.bent")


@pytest.mark.parametrize("sql", SAME)
def test_a_function_over_unsealed_data_answers_as_the_server_does(agent, shop, functions, sql):
    with psycopg.connect(agent.text()) as connection, psycopg.connect(shop.admin.text()) as admin:
        shown = connection.execute(sql)
        direct = admin.execute(sql)
        assert [column.name for column in shown.description] == [column.name for column in direct.description]
        assert shown.fetchall() == direct.fetchall()


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("sql", MASKED)
def test_what_a_function_gives_back_of_a_sealed_column_is_masked(agent, functions, sql, binary):
    with psycopg.connect(agent.text()) as connection, connection.cursor(binary=binary) as cursor:
        rows = cursor.execute(sql).fetchall()
    assert rows
    for row in rows:
        assert not any(value in repr(row).lower() for value in functions), row
        assert all(cell is None or "redacted by exeat" in str(cell) or "*****" in str(cell) for cell in row), row


@pytest.mark.parametrize("sql", REFUSED)
def test_a_function_that_tells_or_cannot_be_followed_is_refused(agent, functions, sql):
    with psycopg.connect(agent.text()) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege) as refused:
            connection.execute(sql)
        assert not any(value in str(refused.value).lower() for value in functions)
        connection.rollback()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_replaced_body_is_what_counts(agent, shop, functions):
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin:
        admin.execute("CREATE FUNCTION bodies.moving() RETURNS text LANGUAGE sql AS 'SELECT city FROM customers WHERE id = 1'")
        with psycopg.connect(agent.text()) as connection:
            plain = connection.execute("SELECT bodies.moving()").fetchone()
        assert plain == admin.execute("SELECT city FROM customers WHERE id = 1").fetchone()
        admin.execute("CREATE OR REPLACE FUNCTION bodies.moving() RETURNS text LANGUAGE sql AS 'SELECT ssn FROM customers WHERE id = 1'")

        def moved():
            with contextlib.suppress(psycopg.Error), psycopg.connect(agent.text()) as connection:
                return "***" in connection.execute("SELECT bodies.moving()").fetchone()[0]

        wait_until("the gateway has read the new body", moved)


BOUND_LONG_AGO = """
SELECT clock_timestamp() - query_start > interval '2 s' FROM pg_stat_activity
WHERE state = 'active' AND query = 'SELECT bodies.later()'
"""


def test_a_body_replaced_before_a_portal_calls_it_lets_nothing_out(agent, shop, functions):
    """The server reads a body when it first calls it, and holds no lock on it: the portal was bound to another."""
    body = "CREATE OR REPLACE FUNCTION bodies.later() RETURNS text LANGUAGE sql AS 'SELECT {} FROM customers WHERE id = 1'"
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin, session(agent) as connection:
        admin.execute(body.format("city"))

        def shown():
            with contextlib.suppress(psycopg.Error), psycopg.connect(agent.text()) as other:
                return other.execute("SELECT bodies.later()").fetchone()[0]
            return ""

        city, ssn = admin.execute("SELECT city, ssn FROM customers WHERE id = 1").fetchone()
        wait_until("the gateway knows the function", lambda: shown() == city)
        connection.cycle(wire.query("BEGIN"))
        connection.send(wire.parse("SELECT bodies.later()") + wire.bind("p") + wire.FLUSH)
        connection.receive_until("2")
        admin.execute(body.format("ssn"))
        wait_until("the gateway knows the other body", lambda: "***" in shown())
        wait_until("the catalog's bound has passed", lambda: (True,) in admin.execute(BOUND_LONG_AGO).fetchall())
        # Only a lock makes the server look at what others have changed.
        connection.send(wire.parse("SELECT count(*) FROM orders") + wire.bind() + wire.execute() + wire.FLUSH)
        connection.receive_until("C")
        connection.send(wire.execute("p") + wire.SYNC)
        heard = []
        try:
            heard = connection.receive_until("Z")
        except wire.Closed:
            pass
        assert ssn.encode() not in b"".join(body for _, body in heard)
        assert "D" not in [tag for tag, _ in heard], heard
