"""What a client asks the gateway itself: SHOW exeat.policy and its kin, SET exeat.purpose, SET exeat.explain; by every
road a driver takes, in any state of the transaction, and never the server."""

import asyncio
import json

import asyncpg
import psycopg
import pytest

from lib import wire
from test_cursors import query, rows, sqlstates

QUESTIONS = ("policy", "limits", "session", "last_refusal")


@pytest.fixture
def agent_dsn(plain, trust):
    return plain.dsn(trust.token("agent-7", ["agents"]))


@pytest.fixture
def session(plain, agent_dsn):
    with wire.Connection("127.0.0.1", plain.port) as connection:
        yield connection.login(agent_dsn)


def show(connection, name):
    cursor = connection.execute(f"SHOW exeat.{name}")
    assert cursor.description[0].name == f"exeat.{name}" and cursor.statusmessage == "SHOW"
    ((text,),) = cursor.fetchall()
    return json.loads(text)


def refusal(connection, sql):
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql)
    return caught.value


def test_every_question_has_one_row_of_json(connect, agent_dsn):
    connection = connect(agent_dsn)
    policy = show(connection, "policy")
    assert policy["target"] == "shop" and "read" in policy["capabilities"]
    assert {"column": "public.customers.email", "label": "email", "mask": "redact"} in policy["sealed"]
    assert not any("hr." in sealed["column"] for sealed in policy["sealed"])
    session = show(connection, "session")
    assert session["subject"] == "agent-7" and session["groups"] == ["agents"] and session["purpose"] == ""
    assert show(connection, "limits")["statement_bytes"] == 1024 * 1024
    assert show(connection, "last_refusal") is None


def test_a_refusal_is_told_again_inside_the_transaction_it_broke(connect, agent_dsn):
    connection = connect(agent_dsn)
    connection.execute("BEGIN")
    first = refusal(connection, "SELECT id FROM customers WHERE ssn = 'x'")
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    assert show(connection, "last_refusal") == json.loads(first.diag.message_detail)
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    assert refusal(connection, "SELECT 1").sqlstate == "25P02"
    connection.execute("ROLLBACK")
    assert show(connection, "last_refusal")["code"] == "masked_column_in_predicate"


def test_a_purpose_is_kept_and_never_reaches_the_server(connect, agent_dsn, shop):
    connection = connect(agent_dsn)
    assert connection.execute("SET exeat.purpose = 'ticket 4711'").statusmessage == "SET"
    assert show(connection, "session")["purpose"] == "ticket 4711"
    assert connection.execute("SELECT name FROM pg_settings WHERE name = 'exeat.purpose'").fetchall() == []
    connection.execute("RESET exeat.purpose")
    assert show(connection, "session")["purpose"] == ""
    for sql in ["SET exeat.subject = 'dana'", "SET exeat.policy = 'x'", "SHOW exeat.nosuch", "SHOW exeat.policy; SELECT 1",
                "SET exeat.explain = perhaps", f"SET exeat.purpose = '{'x' * 1025}'"]:
        assert refusal(connection, sql).sqlstate == "42501", sql
    assert connection.execute("SHOW exeat.subject").fetchone() == ("agent-7",)


def test_explain_tells_what_would_become_of_the_next_statement_and_runs_nothing(connect, agent_dsn):
    connection = connect(agent_dsn)

    def explained(sql):
        connection.execute("SET exeat.explain = on")
        ((text,),) = connection.execute(sql).fetchall()
        return json.loads(text)

    permit = explained("SELECT id, email FROM customers WHERE id = 1")
    assert permit["decision"] == "permit" and "readers" in permit["rules"]
    assert permit["masked"] == [{"column": "public.customers.email", "label": "email", "mask": "redact"}]
    assert {"column": "public.customers.id", "how": "lookup", "at": 39} in permit["uses"]
    refused = explained("SELECT id FROM customers WHERE email = 'x'")
    assert refused["decision"] == "refuse" and refused["refusal"]["code"] == "masked_column_in_predicate"
    # One statement only.
    assert connection.execute("SELECT id FROM customers WHERE id = 1").fetchall() == [(1,)]
    connection.execute("SET exeat.explain = on")
    connection.execute("SET exeat.explain = off")
    assert connection.execute("SELECT id FROM customers WHERE id = 1").fetchall() == [(1,)]


@pytest.mark.parametrize("binary", [False, True])
def test_the_extended_protocol_asks_too(connect, agent_dsn, binary):
    connection = connect(agent_dsn)
    for prepare in (False, True):
        for name in QUESTIONS:
            ((text,),) = connection.execute(f"SHOW exeat.{name}", prepare=prepare, binary=binary).fetchall()
            json.loads(text)
    connection.execute("SET exeat.explain = on", prepare=True)
    ((text,),) = connection.execute("SELECT id FROM customers WHERE id = %s", [1], prepare=False).fetchall()
    assert json.loads(text)["decision"] == "permit"
    assert connection.execute("SELECT id FROM customers WHERE id = %s", [1], prepare=True).fetchall() == [(1,)]


def test_answers_keep_their_order_in_a_pipeline(session):
    session.send(
        wire.parse("SELECT 1"), wire.bind(), wire.execute(),
        wire.parse("SHOW exeat.session", "mine"), wire.describe("S", "mine"), wire.bind("", "mine"), wire.describe(), wire.execute(),
        wire.parse("SELECT 2"), wire.bind(), wire.execute(), wire.close("S", "mine"), wire.SYNC,
    )
    answer = session.receive_until("Z")
    assert [tag for tag, _ in answer] == list("12DC1tT2TDC12DC3Z")
    found = [cells[0] for cells in rows(answer)]
    assert found[0] == b"1" and b"agent-7" in found[1] and found[2] == b"2"
    # What failed before it makes the rest of the batch skipped, the question too.
    session.send(wire.parse("SELECT 1/0"), wire.bind(), wire.execute(), wire.parse("SHOW exeat.session"), wire.bind(), wire.execute(), wire.SYNC)
    answer = session.receive_until("Z")
    assert sqlstates(answer) == ["22012"] and not rows(answer)
    assert sqlstates(session.cycle(wire.bind("", "mine"), wire.SYNC)) == ["26000"]


def test_a_question_does_not_leave_another_statement_under_its_name(session):
    """The server still has the unnamed statement; the client's last Parse was a question."""
    session.cycle(wire.parse("SELECT 1"), wire.SYNC)
    session.cycle(wire.parse("SHOW exeat.limits"), wire.close("S", ""), wire.SYNC)
    answer = session.cycle(wire.bind(), wire.execute(), wire.SYNC)
    assert sqlstates(answer) == ["26000"] and not rows(answer)
    session.cycle(wire.parse("SHOW exeat.limits", "s"), wire.SYNC)
    assert sqlstates(session.cycle(wire.parse("SELECT 1", "s"), wire.SYNC)) == ["42P05"]
    answer = session.cycle(wire.parse("SELECT 3"), wire.bind(), wire.execute(), wire.SYNC)
    assert rows(answer) == [[b"3"]]
    assert b"statement_bytes" in rows(session.cycle(wire.bind("", "s"), wire.execute(), wire.SYNC))[0][0]
    assert rows(query(session, "SHOW exeat.limits")) and not sqlstates(query(session, "SELECT 1"))


def test_asyncpg_asks(agent_dsn):
    async def run():
        connection = await asyncpg.connect(
            host=agent_dsn.host, port=agent_dsn.port, user=agent_dsn.user, password=agent_dsn.password,
            database=agent_dsn.dbname, ssl=False,
        )
        try:
            assert json.loads(await connection.fetchval("SHOW exeat.session"))["subject"] == "agent-7"
            async with connection.transaction():
                await connection.execute("SET exeat.purpose = 'report'")
                assert json.loads(await connection.fetchval("SHOW exeat.session"))["purpose"] == "report"
                assert await connection.fetchval("SELECT count(*) FROM customers") > 0
        finally:
            await connection.close()

    asyncio.run(run())
