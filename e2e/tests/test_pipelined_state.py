"""What a name means must follow the server, also when the client sends ahead of its answers.

`mirror.customers` has the columns of `public.customers` and nothing sealed, so an expression over its ssn is permitted.
A gateway that believes the session to be in `mirror` when the server is back in `public` would let the same expression
compute over the sealed column, and the row description would not show it.
"""

import psycopg
import pytest

from lib import wire

LEAK = "SELECT substr(ssn, 1, 3) FROM customers"
TO_MIRROR = "SET LOCAL search_path = mirror"


@pytest.fixture(scope="module")
def mirror(shop):
    with psycopg.connect(shop.admin.text(), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA mirror")
        connection.execute("CREATE TABLE mirror.customers AS SELECT id, 'harmless'::text AS ssn FROM public.customers LIMIT 1")
        connection.execute("GRANT USAGE ON SCHEMA mirror TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA mirror TO PUBLIC")
        yield
        connection.execute("DROP SCHEMA mirror CASCADE")


@pytest.fixture
def session(plain, trust, mirror):
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection("127.0.0.1", plain.port) as connection:
        yield connection.login(dsn)


def run(sql):
    return wire.parse(sql) + wire.bind() + wire.execute()


SYNC = wire.message("S")


def cells(messages):
    return [body for tag, body in messages if tag == "D"]


def sqlstates(messages):
    return [wire.error_fields(body)["C"] for tag, body in messages if tag == "E"]


def cycles(session, count):
    return [session.receive_until("Z") for _ in range(count)]


def test_the_permitted_twin_reads_the_mirror(session):
    session.send(run(TO_MIRROR) + run(LEAK) + SYNC)
    (answer,) = cycles(session, 1)
    assert b"har" in cells(answer)[0] and not sqlstates(answer)


def test_a_batch_sent_ahead_is_not_analysed_under_what_the_batch_before_takes_back(session):
    session.send(run(TO_MIRROR) + run(LEAK) + SYNC + run(LEAK) + SYNC)
    first, second = cycles(session, 2)
    assert b"har" in cells(first)[0]
    assert sqlstates(second) == ["42501"] and not cells(second)


def test_a_rollback_sent_ahead_takes_the_path_back(session):
    session.send(*(run(sql) + SYNC for sql in ("BEGIN", TO_MIRROR, LEAK, "ROLLBACK", LEAK)))
    answers = cycles(session, 5)
    assert b"har" in cells(answers[2])[0]
    assert sqlstates(answers[4]) == ["42501"] and not cells(answers[4])


def test_an_earlier_answer_does_not_settle_a_later_transaction(session):
    session.send(run("SELECT pg_sleep(0.3)") + SYNC + run("BEGIN") + run(TO_MIRROR) + SYNC)
    cycles(session, 2)
    session.send(run("ROLLBACK") + SYNC)
    cycles(session, 1)
    session.send(run(LEAK) + SYNC)
    (answer,) = cycles(session, 1)
    assert sqlstates(answer) == ["42501"] and not cells(answer)


def test_savepoints_take_the_path_back(session):
    for sql in ("BEGIN", "SAVEPOINT s", TO_MIRROR):
        session.cycle(wire.query(sql))
    assert b"har" in cells(session.cycle(wire.query(LEAK)))[0]
    session.cycle(wire.query("ROLLBACK TO s"))
    assert sqlstates(session.cycle(wire.query(LEAK))) == ["42501"]


def test_a_failed_batch_takes_the_path_back(session):
    session.send(run(TO_MIRROR) + run("SELECT 1/0") + SYNC + run(LEAK) + SYNC)
    first, second = cycles(session, 2)
    assert sqlstates(first) == ["22012"]
    assert sqlstates(second) == ["42501"] and not cells(second)


def test_a_statement_prepared_in_the_mirror_is_not_bound_elsewhere(session):
    session.send(run(TO_MIRROR) + wire.parse(LEAK, "s") + SYNC + wire.bind("", "s") + wire.execute() + SYNC)
    first, second = cycles(session, 2)
    assert not sqlstates(first)
    assert sqlstates(second) in (["42501"], ["26000"]) and not cells(second)


def test_the_statements_of_one_query_see_the_path_that_those_before_set(session):
    answer = session.cycle(wire.query(f"SET search_path = mirror; {LEAK}"))
    assert b"har" in cells(answer)[0] and not sqlstates(answer)


@pytest.mark.parametrize("back", ["SET search_path = public", "RESET search_path", "SET search_path = missing, public, mirror", "DISCARD ALL"])
def test_the_statements_of_one_query_see_no_path_that_is_gone(session, back):
    answer = session.cycle(wire.query(f"SET search_path = mirror; {back}; {LEAK}"))
    assert sqlstates(answer) == ["42501"] and not cells(answer)


def test_a_path_that_the_text_does_not_tell_is_not_believed(session):
    moves = f"SELECT set_config('search_path', 'mir' || 'ror', false); {LEAK}"
    answer = session.cycle(wire.query(moves))
    assert sqlstates(answer) == ["42501"] and not cells(answer)
