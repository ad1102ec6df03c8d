"""What policy does not allow is refused with an answer a program can act on, and the session lives on."""

import json

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from lib import wire

# One line per way in: the statement, the codes a refusal may carry, and its permitted twin.
REFUSED = [
    ("SELECT id FROM customers WHERE ssn = '137-54-7920'", {"masked_column_in_predicate"},
     "SELECT id FROM customers WHERE id = 1"),
    ("SELECT id FROM customers WHERE email LIKE 'a%'", {"masked_column_in_predicate", "masked_column_in_expression"},
     "SELECT id FROM customers WHERE city = 'Boston'"),
    ("SELECT substr(email, 1, 3) FROM customers", {"masked_column_in_expression"}, "SELECT lower(city) FROM customers"),
    ("SELECT repeat(email, 2) FROM customers", {"masked_column_in_expression"}, "SELECT email || email FROM customers"),
    ("SELECT birth_date + 1 FROM customers", {"masked_column_in_expression"}, "SELECT birth_date::text FROM customers"),
    ("SELECT count(DISTINCT ssn) FROM customers", {"masked_column_in_key"}, "SELECT max(ssn) FROM customers"),
    ("SELECT row(c.*) = row(c.*) FROM customers c WHERE c IS NOT NULL", {"masked_column_in_expression"}, "SELECT c FROM customers c"),
    ("SELECT id FROM customers ORDER BY ssn", {"masked_column_in_key"}, "SELECT id FROM customers ORDER BY city"),
    ("SELECT DISTINCT ssn FROM customers", {"masked_column_in_key"}, "SELECT DISTINCT city FROM customers"),
    ("SELECT count(*) FROM customers GROUP BY phone", {"masked_column_in_key"},
     "SELECT count(*) FROM customers GROUP BY city"),
    ("SELECT a.id FROM customers a JOIN customers b USING (ssn)", {"masked_column_in_key"},
     "SELECT a.id FROM customers a JOIN customers b USING (id)"),
    ("SELECT ssn FROM customers UNION SELECT 'x'", {"masked_column_in_key", "masked_column_in_expression", "opaque_statement"},
     "SELECT city FROM customers UNION SELECT 'x'"),
    ("SELECT nullif((SELECT ssn FROM customers WHERE id = 1), 'x')", {"masked_column_in_predicate"},
     "SELECT (SELECT ssn FROM customers WHERE id = 1)"),
    ("SELECT * FROM hr.salaries", {"denied"}, "SELECT * FROM orders"),
    ("UPDATE customers SET city = 'x' WHERE id = 1", {"capability_missing"}, "SELECT city FROM customers WHERE id = 1"),
    ("DELETE FROM orders WHERE id = 1", {"capability_missing"}, "SELECT id FROM orders WHERE id = 1"),
    ("INSERT INTO orders SELECT * FROM orders", {"capability_missing"}, "SELECT id FROM orders"),
    ("CREATE TABLE mine (i integer)", {"capability_missing", "opaque_statement"}, "SELECT 1"),
    ("DO $$ BEGIN END $$", {"capability_missing", "opaque_statement"}, "SELECT 1"),
    ("SET ROLE shop_dpo", {"capability_missing", "opaque_statement"}, "SHOW role"),
    ("SELECT pg_read_file('PG_VERSION')", {"opaque_function", "opaque_statement", "capability_missing"},
     "SELECT pg_backend_pid()"),
    ("SELECT query_to_xml('SELECT ssn FROM customers', true, true, '')", {"opaque_function", "opaque_statement"},
     "SELECT current_database()"),
    ("SET client_encoding = 'LATIN1'", {"setting_pinned"}, "SET client_encoding = 'UTF8'"),
    ("SET standard_conforming_strings = off", {"setting_pinned"}, "SET standard_conforming_strings = on"),
    ("SELECT 1; SELECT id FROM customers WHERE ssn = 'x'", {"masked_column_in_predicate"}, "SELECT 1; SELECT 2"),
]
SIMPLE_ONLY = "; "


def payload(error):
    """The refusal's DETAIL, checked for what every refusal must have."""
    diag = error.diag
    assert diag.severity == "ERROR" and "\n" not in diag.message_detail
    detail = json.loads(diag.message_detail)
    assert detail["v"] == 1 and detail["request_id"].startswith("req_") and detail["object"]["target"] == "shop"
    assert detail["reason"] and diag.message_primary
    if "suggestion" in detail:
        assert diag.message_hint
    return detail


def refused(connection, sql, **options):
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql, **options)
    assert caught.value.sqlstate == "42501", str(caught.value)
    return payload(caught.value)


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize(("sql", "codes", "permitted"), REFUSED, ids=[row[0][:60] for row in REFUSED])
def test_a_refusal_says_why_and_its_twin_passes(connect, agent, sql, codes, permitted, prepare):
    if prepare and SIMPLE_ONLY in sql:
        prepare = False
    connection = connect(agent)
    detail = refused(connection, sql, prepare=prepare or None)
    assert detail["code"] in codes
    assert connection.info.transaction_status == TransactionStatus.IDLE
    connection.execute(permitted, prepare=prepare or None)


def test_the_place_in_the_statement_is_named(connect, agent):
    sql = "SELECT id FROM customers WHERE ssn = 'x'"
    detail = refused(connect(agent), sql)
    assert detail["object"]["relation"] == "public.customers" and detail["object"]["column"] == "ssn"
    assert detail["object"]["at"] == sql.index("ssn") + 1


def test_a_denying_rule_gives_its_own_reason(connect, agent):
    detail = refused(connect(agent), "SELECT * FROM hr.salaries")
    assert detail["rule"] == "no-payroll" and "ask the people team" in detail["reason"]


def test_nobody_without_a_rule_gets_in(gateway, provider):
    """A valid token is not enough: without any rule for its groups the answer comes at login."""
    dsn = gateway.dsn(provider.token("stranger"))
    with wire.Connection(dsn.host, dsn.port, ca=dsn.sslrootcert) as connection, pytest.raises(wire.LoginRefused) as caught:
        connection.login(dsn)
    fields = caught.value.fields
    assert fields["S"] == "FATAL" and fields["C"] == "42501" and json.loads(fields["D"])["code"] == "no_rule"
    assert fields["H"]


@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "extended"])
def test_a_refusal_aborts_the_transaction_as_an_error_would(connect, agent, prepare):
    connection = connect(agent)
    connection.execute("BEGIN")
    connection.execute("SELECT 1", prepare=prepare or None)
    refused(connection, "SELECT substr(ssn, 1, 3) FROM customers", prepare=prepare or None)
    assert connection.info.transaction_status == TransactionStatus.INERROR
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        connection.execute("SELECT 1")
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_savepoint_survives_a_refusal(connect, agent):
    connection = connect(agent)
    for sql in ("BEGIN", "SAVEPOINT here"):
        connection.execute(sql)
    refused(connection, "SELECT substr(ssn, 1, 3) FROM customers")
    connection.execute("ROLLBACK TO SAVEPOINT here")
    assert connection.execute("SELECT count(*) FROM orders").fetchone() == (1500,)
    connection.execute("COMMIT")


def test_a_refusal_in_a_pipeline_skips_to_the_sync_and_no_further(connect, agent):
    connection = connect(agent)
    with pytest.raises(psycopg.Error) as caught, connection.pipeline() as pipeline:
        before = connection.execute("SELECT 1")
        connection.execute("SELECT substr(ssn, 1, 3) FROM customers")
        skipped = connection.execute("SELECT 2")
        pipeline.sync()
        after = connection.execute("SELECT 3")
        pipeline.sync()
        assert before.fetchone() == (1,)
        assert after.fetchone() == (3,)
        with pytest.raises(psycopg.errors.PipelineAborted):
            skipped.fetchone()
        raise AssertionError("the refusal did not surface")
    assert caught.value.sqlstate == "42501"
    assert connection.execute("SELECT 4").fetchone() == (4,)


def codes_of(messages):
    return [wire.error_fields(body)["C"] if tag == "E" else tag for tag, body in messages]


def test_a_pipeline_on_the_wire_has_one_error_and_one_ready(plain, trust):
    """Exact order of messages: nothing between the refusal and the client's own Sync is answered."""
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        seen = connection.cycle(
            wire.parse("SELECT 1"), wire.bind(), wire.execute(),
            wire.parse("SELECT id FROM customers WHERE ssn = 'x'"), wire.bind(), wire.describe(), wire.execute(),
            wire.parse("SELECT 2"), wire.bind(), wire.execute(), wire.SYNC,
        )
        assert codes_of(seen) == ["1", "2", "D", "C", "42501", "Z"]
        assert seen[-1][1] == b"I"
        again = connection.cycle(wire.parse("SELECT 2"), wire.bind(), wire.execute(), wire.SYNC)
        assert codes_of(again) == ["1", "2", "D", "C", "Z"]


def test_statements_prepared_before_a_refusal_survive_it(plain, trust):
    """Also the unnamed one: a refusal in extended query leaves what PostgreSQL's own error would leave."""
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        connection.cycle(wire.parse("SELECT 11", "kept"), wire.parse("SELECT 22"), wire.SYNC)
        refusal = connection.cycle(wire.parse("SELECT substr(ssn, 1, 3) FROM customers", "bad"), wire.SYNC)
        assert codes_of(refusal) == ["42501", "Z"]
        seen = connection.cycle(wire.bind(statement="kept"), wire.execute(), wire.bind(), wire.execute(), wire.SYNC)
        assert codes_of(seen) == ["2", "D", "C", "2", "D", "C", "Z"]
        # The refused one never came to be.
        missing = connection.cycle(wire.bind(statement="bad"), wire.SYNC)
        assert codes_of(missing) == ["26000", "Z"]


@pytest.mark.parametrize("sql", [
    "COPY (SELECT id FROM customers ORDER BY ssn) TO STDOUT",
    "COPY (SELECT substr(ssn, 1, 3) FROM customers) TO STDOUT",
    "COPY orders FROM STDIN",
])
def test_copy_is_refused_cleanly(connect, agent, sql):
    connection = connect(agent)
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql)
    assert caught.value.sqlstate == "42501"
    payload(caught.value)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_function_call_message_is_refused_cleanly(plain, trust):
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        # pg_backend_pid() by OID, no arguments, text result.
        call = wire.message("F", (2026).to_bytes(4, "big") + b"\0\0" + b"\0\0" + b"\0\0")
        assert codes_of(connection.cycle(call)) == ["42501", "Z"]
        assert codes_of(connection.cycle(wire.query("SELECT 1"))) == ["T", "D", "C", "Z"]


def test_a_replication_startup_is_refused(plain, trust):
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection, pytest.raises(wire.LoginRefused) as caught:
        connection.login(dsn, replication="database")
    assert caught.value.fields["S"] == "FATAL"


def test_an_unknown_message_ends_the_session_with_an_answer(plain, trust):
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        connection.send(wire.message("?", b"what"))
        tag, body = connection.receive()
        assert tag == "E" and wire.error_fields(body)["C"] == "08P01"
        with pytest.raises(wire.Closed):
            connection.receive()
