"""Whatever the principal does, nobody hears what they must not.

A scripted session of every kind, good and bad, at debug log level, through a relay that keeps the bytes. Afterwards
no credential of the upstream, no token and no sealed value of the sample stands in what the agent's client received,
in the logs, or anywhere in the clear in the gateway's folder.
"""

import contextlib

import psycopg
import pytest

from lib import wire
from lib.relay import Relay
from spine import REDACTED

GOOD = [
    "SELECT * FROM customers",
    "SELECT ssn, email, phone, birth_date FROM customers ORDER BY id",
    "SELECT card_number FROM payments",
    "SELECT c.email FROM orders o JOIN customers c ON c.id = o.customer_id",
    "SHOW search_path",
    "SET application_name = 'listener'",
    "BEGIN", "SELECT id FROM orders LIMIT 1", "COMMIT",
    "SELECT current_user, session_user",
    "SELECT * FROM pg_stats WHERE tablename = 'customers'",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_settings",
    "SELECT * FROM pg_roles",
    "SELECT * FROM pg_user",
    "SHOW ALL",
    "SELECT * FROM pg_prepared_statements",
]
BAD = [
    "SELECT substr(email, 1, 3) FROM customers",
    "SELECT id FROM customers ORDER BY ssn",
    "SELECT ssn::integer FROM customers",
    "SELECT birth_date::integer FROM customers",
    "SELECT 1/(id - 1), ssn FROM customers",
    "SELECT email::xml FROM customers",
    "SELECT c::text FROM customers c",
    "SELECT row_to_json(c) FROM customers c",
    "COPY customers TO STDOUT",
    "TABLE hr.salaries",
    "SELECT rolpassword FROM pg_authid",
    "SELECT passwd FROM pg_shadow",
    "SELECT pg_read_file('pg_hba.conf')",
    "EXPLAIN ANALYZE SELECT * FROM customers WHERE email = 'x'",
    "SELECT most_common_vals FROM pg_stats WHERE attname = 'ssn'",
    "DECLARE c CURSOR WITH HOLD FOR SELECT ssn FROM customers",
    "PREPARE p AS SELECT ssn FROM customers",
    "DO $$ BEGIN RAISE EXCEPTION '%', (SELECT ssn FROM customers LIMIT 1); END $$",
    "SELECT set_config('application_name', ssn, false) FROM customers",
    "CREATE TEMP TABLE t AS SELECT ssn FROM customers",
    "SELEC", "SELECT nope FROM customers", "SELECT * FROM nope",
    "SELECT * FROM customers WHERE id = (SELECT ssn FROM customers LIMIT 1)",
]


@pytest.fixture(scope="module")
def listener(fresh_gateway, trust):
    """A gateway of its own: its folder and log hold this session only."""
    gateway = fresh_gateway("listener").trust(trust.entry()).start(level="trace")
    yield gateway
    gateway.stop()


def run(cursor, sql, options):
    if sql.startswith("COPY"):
        with cursor.copy(sql) as rows:
            return list(rows)
    return cursor.execute(sql, **options).fetchall()


def play(dsn, statements):
    """Every statement by simple and by extended query, in text and binary; errors are part of the play."""
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        for sql in statements:
            for options in ({}, {"prepare": True}):
                with contextlib.suppress(psycopg.Error):
                    run(connection.cursor(binary=bool(options)), sql, options)
        # An error that would carry a value: a literal that does not fit, with a sealed column beside it.
        with contextlib.suppress(psycopg.Error):
            connection.execute("SELECT ssn FROM customers WHERE id = %s", ("x",))
        with contextlib.suppress(psycopg.Error), connection.pipeline():
            for sql in statements[:6]:
                connection.execute(sql)


def fail_to_log_in(dsn, tokens_used):
    for password in tokens_used:
        for user in ("agent", "postgres", "x" * 200):
            with wire.Connection(dsn.host, dsn.port) as connection, pytest.raises((wire.LoginRefused, wire.Closed)):
                connection.login(dsn.with_(password=password, user=user))


def sealed_values(truth):
    customers, payments = truth["customers"].values(), truth["payments"].values()
    columns = ("email", "ssn", "phone")
    values = {row[column] for row in customers for column in columns if row[column] is not None}
    return values | {row["card_number"] for row in payments} | {row["birth_date"].isoformat() for row in customers}


def found(secrets, data):
    return sorted(secret for secret in secrets if secret.encode() in data)


def kept(folder):
    """What all its files hold. The gateway renames one now and then: then they are read again."""
    try:
        return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    except FileNotFoundError:
        return kept(folder)


def test_nothing_secret_is_heard(listener, trust, truth, shop, server):
    agent = trust.token("agent-7", ["agents"])
    officer = trust.token("dana", ["dpo"])
    expired = trust.token("agent-7", ["agents"], ttl="-1h")
    forged = agent[:-8] + "AAAAAAAA"
    with psycopg.connect(shop.admin.text()) as admin:
        stored = [row[0] for row in admin.execute("SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")]
    credentials = {shop.reader.password, shop.officer.password, server.password, *stored}
    # A token is recognised by its signature: the other two parts are shared with the forged one.
    tokens = {agent.split(".")[2], officer.split(".")[2], expired.split(".")[2]}
    values = sealed_values(truth)
    assert len(values) > 2000

    with Relay(listener.port) as relay:
        dsn = listener.dsn(agent).with_(port=relay.port)
        play(dsn, GOOD + BAD)
        fail_to_log_in(dsn, [expired, forged, "password", shop.reader.password])
        heard = relay.bytes("to_client")
        assert agent.encode() in relay.bytes("to_server")
    with Relay(listener.port) as relay:
        play(listener.dsn(officer).with_(port=relay.port), GOOD + BAD)
        heard_by_officer = relay.bytes("to_client")

    # The ear works: the masked rows came, the officer got the values, and a planted secret would be found.
    assert REDACTED.encode() in heard and b"Ada" in heard
    assert len(found(values, heard_by_officer)) > 2000
    assert found(values, heard) == []
    assert found(tokens | credentials, heard) == []
    assert found(tokens | credentials, heard_by_officer) == []

    log = listener.log_text().encode()
    assert log and found(values | tokens | credentials, log) == []

    # The record speaks of both sessions, and nothing in the clear in it is a secret. Passwords stand in files elsewhere.
    clear = kept(listener.folder)
    assert b"agent-7" in clear and b"dana" in clear and b"statement.intent" in clear and b"auth.fail" in clear
    assert found(values | tokens | credentials, clear) == []


def test_a_sealed_value_in_the_clients_own_words_is_not_kept_in_clear(listener, trust, truth):
    """Literals in SQL and parameters are data: the record seals them, the log above debug level does not have them."""
    ssn, email = truth["customers"][9]["ssn"], truth["customers"][11]["email"]
    dsn = listener.dsn(trust.token("agent-9", ["agents"]))
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        for sql, values in [
            (f"SELECT id FROM customers WHERE ssn = '{ssn}'", None),
            (f"SELECT '{ssn}', id FROM orders LIMIT 1", None),
            ("SELECT id FROM customers WHERE email = %s", (email,)),
            ("SELECT %s::text, id FROM orders LIMIT 1", (email,)),
            (f'SELECT id AS "{email}" FROM orders LIMIT 1', None),
        ]:
            with contextlib.suppress(psycopg.Error):
                connection.execute(sql, values)
    clear = kept(listener.data_dir)
    assert b"agent-9" in clear
    assert found({ssn, email}, clear) == []
