"""Cursors, SQL's PREPARE and EXECUTE, and EXPLAIN in a session with masks: each as the statement it carries, whatever
road its rows take, and no name that stands for something else than what was admitted under it.
"""

import asyncio

import asyncpg
import psycopg
import pytest

from lib import wire
from lib.dsn import psql
from lib.run import wait_until
from spine import POLICY, REDACTED, policy

STRICTER = policy({"email": {"with": "nullify"}, "ssn": {"with": "redact"}})


@pytest.fixture
def agent_dsn(plain, trust):
    return plain.dsn(trust.token("agent-7", ["agents"]))


@pytest.fixture
def session(plain, agent_dsn):
    with wire.Connection("127.0.0.1", plain.port) as connection:
        yield connection.login(agent_dsn)


def query(session, sql):
    return session.cycle(wire.query(sql))


def rows(messages):
    """Rows as lists of cells."""
    found = []
    for tag, body in messages:
        if tag != "D":
            continue
        cells, at = [], 2
        for _ in range(int.from_bytes(body[:2])):
            length = int.from_bytes(body[at:at + 4], signed=True)
            at += 4
            cells.append(None if length < 0 else body[at:at + length])
            at += max(length, 0)
        found.append(cells)
    return found


def sqlstates(messages):
    return [wire.error_fields(body)["C"] for tag, body in messages if tag == "E"]


def refusal(connection, sql):
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql).fetchall()
    return caught.value.sqlstate


def test_a_cursor_gives_masked_rows_by_every_way_of_fetching(connect, agent_dsn, truth):
    connection = connect(agent_dsn)
    ids = sorted(truth["customers"])
    with connection.transaction():
        connection.execute("DECLARE c SCROLL CURSOR FOR SELECT id, email FROM customers ORDER BY id")
        for fetch, expected in [
            ("FETCH c", ids[:1]),
            ("FETCH FORWARD 2 FROM c", ids[1:3]),
            ("FETCH BACKWARD 1 IN c", ids[1:2]),
            ("FETCH ABSOLUTE 5 FROM c", ids[4:5]),
            ("FETCH ALL c", ids[5:]),
        ]:
            found = connection.execute(fetch).fetchall()
            assert [row[0] for row in found] == expected, fetch
            assert all(row[1] == (truth["customers"][row[0]]["email"] and REDACTED) for row in found), fetch
        assert connection.execute("MOVE ABSOLUTE 0 IN c").rowcount == 0
        assert len(connection.execute("FETCH 3 FROM c", binary=True).fetchall()) == 3
        connection.execute("CLOSE c")
    with connection.transaction(force_rollback=True):
        assert refusal(connection, "DECLARE c CURSOR FOR SELECT id FROM customers WHERE ssn = '1'") == "42501"


def test_psycopg_server_cursors(connect, agent_dsn, truth):
    connection = connect(agent_dsn, autocommit=False)
    for binary in (False, True):
        with connection.cursor("named", binary=binary, scrollable=True) as cursor:
            cursor.itersize = 3
            cursor.execute("SELECT id, email FROM customers WHERE id < %s ORDER BY id", [9])
            assert [row[1] for row in cursor] == [REDACTED] * 8
            cursor.scroll(0, mode="absolute")
            assert cursor.fetchone() == (1, REDACTED)
    with connection.cursor("held", withhold=True) as cursor:
        cursor.execute("SELECT ssn, id FROM customers ORDER BY id")
        connection.commit()
        first = cursor.fetchone()
        assert first[1] == 1 and first[0] != truth["customers"][1]["ssn"] and first[0].endswith(truth["customers"][1]["ssn"][-4:])
    connection.commit()
    assert refusal(connection, 'FETCH 1 FROM "held"') == "34000"


def test_a_cursor_ends_with_its_transaction_and_an_unknown_one_aborts_the_block(connect, agent_dsn):
    connection = connect(agent_dsn)
    connection.execute("BEGIN")
    connection.execute("DECLARE c CURSOR FOR SELECT email FROM customers")
    connection.execute("COMMIT")
    assert refusal(connection, "FETCH c") == "34000"
    connection.execute("BEGIN")
    assert refusal(connection, "FETCH nobody") == "34000"
    assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INERROR
    assert refusal(connection, "SELECT 1") == "25P02"
    connection.execute("ROLLBACK")
    connection.execute("BEGIN; SAVEPOINT s; DECLARE c CURSOR FOR SELECT email FROM customers; ROLLBACK TO s")
    assert refusal(connection, "FETCH c") == "34000"
    connection.execute("ROLLBACK")


def test_the_name_of_a_cursor_is_the_servers(session):
    long = "c" * 80
    assert not sqlstates(query(session, f"BEGIN; DECLARE {long.upper()} CURSOR FOR SELECT email FROM customers ORDER BY id"))
    assert rows(query(session, f'FETCH 1 FROM "{long[:63]}"')) == [[REDACTED.encode()]]
    assert sqlstates(query(session, f'FETCH 1 FROM "{long[:63].upper()}"')) == ["34000"]


def test_the_protocol_reaches_a_cursor_of_sql(session):
    assert not sqlstates(query(session, "BEGIN; DECLARE c BINARY CURSOR FOR SELECT id, ssn, birth_date FROM customers ORDER BY id"))
    answer = session.cycle(wire.execute("c", 1), wire.SYNC)
    assert not sqlstates(answer) and [tag for tag, _ in answer] == ["D", "s", "Z"]
    ((number, ssn, birth),) = rows(answer)
    assert number == b"1" and birth is None and not any(byte in b"0123456789" for byte in ssn[:-4])
    answer = session.cycle(wire.describe("P", "c"), wire.execute("c", 0), wire.SYNC)
    assert [tag for tag, _ in answer][0] == "T" and all(row[2] is None for row in rows(answer))
    # And SQL a portal of the protocol.
    answer = session.cycle(
        wire.parse("SELECT email FROM customers ORDER BY id"), wire.bind("prt", "", (), (1,)), wire.execute("prt", 1), wire.SYNC
    )
    assert rows(answer) == [[REDACTED.encode()]]
    assert rows(query(session, "FETCH 2 FROM prt")) == [[REDACTED.encode()]] * 2
    assert not sqlstates(session.cycle(wire.close("P", "prt"), wire.SYNC))
    assert sqlstates(query(session, "FETCH 2 FROM prt")) == ["34000"]


def test_a_cursor_made_anew_is_not_read_under_the_plan_of_the_old(session):
    """A FETCH that was bound to one cursor does not run on another of the same name."""
    assert not sqlstates(query(session, "BEGIN; DECLARE c CURSOR FOR SELECT city FROM customers ORDER BY id"))
    bound = session.cycle(wire.parse("FETCH 1 FROM c"), wire.bind("f"), wire.describe("P", "f"), wire.FLUSH, wire.SYNC)
    assert not sqlstates(bound)
    assert not sqlstates(query(session, "CLOSE c; DECLARE c CURSOR FOR SELECT email FROM customers ORDER BY id"))
    answer = session.cycle(wire.execute("f"), wire.SYNC)
    assert sqlstates(answer) == ["26000"] and not rows(answer)
    assert not sqlstates(query(session, "ROLLBACK")) and not sqlstates(query(session, "BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers ORDER BY id"))
    assert rows(query(session, "FETCH 1 FROM c")) == [[REDACTED.encode()]]


def test_a_declare_that_failed_leaves_the_cursor_before_it(session):
    """Sent ahead behind a Sync: what the name stands for is what the server has answered."""
    assert not sqlstates(query(session, "BEGIN"))
    session.send(
        wire.query("DECLARE c CURSOR FOR SELECT email FROM customers ORDER BY id"),
        wire.query("SAVEPOINT s"),
        wire.query("DECLARE c CURSOR FOR SELECT city FROM customers ORDER BY id"),
        wire.query("ROLLBACK TO s"),
        wire.query("FETCH 1 FROM c"),
    )
    answers = [session.receive_until("Z") for _ in range(5)]
    assert [sqlstates(answer) for answer in answers] == [[], [], ["42P03"], [], []]
    assert rows(answers[4]) == [[REDACTED.encode()]]


def test_a_query_that_fails_halfway_has_made_what_stood_before(session):
    assert sqlstates(query(session, "PREPARE a AS SELECT email FROM customers ORDER BY id; SELECT 1/0; PREPARE b AS SELECT 1")) == ["22012"]
    assert rows(query(session, "EXECUTE a"))[0] == [REDACTED.encode()]
    assert sqlstates(query(session, "EXECUTE b")) == ["26000"]
    assert sqlstates(query(session, "SELECT 1/0; DEALLOCATE a")) == ["22012"]
    assert rows(query(session, "EXECUTE a"))[0] == [REDACTED.encode()]


def test_execute_gives_masked_rows_and_takes_arguments(connect, agent_dsn):
    connection = connect(agent_dsn)
    connection.execute("PREPARE p (int) AS SELECT id, email FROM customers WHERE id = $1")
    assert connection.execute("EXECUTE p (3)").fetchall() == [(3, REDACTED)]
    assert connection.execute("EXECUTE p (1 + 1)", binary=True).fetchall() == [(2, REDACTED)]
    assert refusal(connection, "EXECUTE p ((SELECT id FROM customers LIMIT 1))") in ("42501", "0A000")
    assert refusal(connection, "EXECUTE nobody") == "26000"
    assert refusal(connection, "PREPARE q AS SELECT id FROM customers WHERE email LIKE $1") == "42501"
    connection.execute("DEALLOCATE p")
    assert refusal(connection, "EXECUTE p (3)") == "26000"


def test_sql_and_protocol_share_prepared_statements(session):
    assert not sqlstates(query(session, "PREPARE p AS SELECT email FROM customers WHERE id = $1"))
    answer = session.cycle(wire.describe("S", "p"), wire.bind("", "p", ("3",), (1,)), wire.execute(), wire.SYNC)
    assert not sqlstates(answer) and rows(answer) == [[REDACTED.encode()]]
    answer = session.cycle(wire.parse("SELECT ssn, id FROM customers WHERE id = $1", "q", (23,)), wire.SYNC)
    assert not sqlstates(answer)
    ((ssn, number),) = rows(query(session, "EXECUTE q(3)"))
    assert number == b"3" and not any(byte in b"0123456789" for byte in ssn[:-4])
    # Not the same text behind the name any more.
    assert not sqlstates(session.cycle(wire.parse("EXECUTE q(3)", "run"), wire.bind("r", "run"), wire.close("S", "q"), wire.SYNC))
    answer = session.cycle(wire.bind("", "run"), wire.execute(), wire.SYNC)
    assert sqlstates(answer) == ["26000"] and not rows(answer)


def test_a_prepared_statement_is_analysed_again_where_its_names_mean_something_else(connect, agent_dsn, shop):
    with psycopg.connect(shop.admin.text(), autocommit=True) as admin:
        admin.execute("CREATE SCHEMA other; CREATE TABLE other.customers AS SELECT id, 'harmless'::text AS ssn FROM public.customers LIMIT 1")
        admin.execute("GRANT USAGE ON SCHEMA other TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA other TO PUBLIC")
        try:
            connection = connect(agent_dsn)
            connection.execute("SET search_path = other")
            connection.execute("PREPARE sp AS SELECT id FROM customers WHERE ssn = 'harmless'")
            assert len(connection.execute("EXECUTE sp").fetchall()) == 1
            connection.execute("SET search_path = public")
            assert refusal(connection, "EXECUTE sp") == "42501"
            connection.execute("PREPARE bare AS SELECT ssn FROM customers LIMIT 1")
            connection.execute("SET search_path = other")
            assert refusal(connection, "EXECUTE bare") == "26000"
        finally:
            admin.execute("DROP SCHEMA other CASCADE")


def test_explain_shows_a_plan_and_nothing_about_sealed_values(connect, agent_dsn):
    connection = connect(agent_dsn)

    def plan(sql):
        return "\n".join(str(row[0]) for row in connection.execute(sql).fetchall())

    assert "cost=" in plan("EXPLAIN SELECT id FROM customers WHERE id = 3")
    assert "Seq Scan" in plan("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF) SELECT email FROM customers")
    assert "cost=" not in plan("EXPLAIN (COSTS OFF, VERBOSE) SELECT email FROM customers WHERE id = 3")
    assert "Plan" in plan("EXPLAIN (COSTS OFF, FORMAT JSON) SELECT email FROM customers")
    for sql in [
        "EXPLAIN SELECT email FROM customers",
        "EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) SELECT email FROM customers",
        "EXPLAIN (COSTS OFF) SELECT id FROM customers WHERE ssn > '5'",
        "EXPLAIN (ANALYZE) SELECT count(*) FROM customers WHERE email LIKE 'a%'",
        "EXPLAIN (COSTS OFF) SELECT id FROM customers ORDER BY ssn",
        "EXPLAIN (COSTS OFF) CREATE TABLE leak AS SELECT ssn FROM customers",
        "EXPLAIN (COSTS OFF) DELETE FROM customers",
    ]:
        assert refusal(connection, sql) == "42501", sql


def test_psql_walks_a_cursor_with_fetch_count(agent_dsn, run):
    script = run.secret_file("cursor.sql", "\\set FETCH_COUNT 3\nSELECT id, email FROM customers ORDER BY id LIMIT 7;\nEXPLAIN SELECT 1;\n")
    said = psql(agent_dsn, file=script).stdout
    assert said.count(REDACTED) == 7 and "Result" in said


def test_asyncpg_fetches_from_a_cursor_of_sql(agent_dsn):
    async def run():
        connection = await asyncpg.connect(
            host=agent_dsn.host, port=agent_dsn.port, user=agent_dsn.user, password=agent_dsn.password,
            database=agent_dsn.dbname, ssl=False,
        )
        try:
            async with connection.transaction():
                await connection.execute("DECLARE c CURSOR FOR SELECT id, email, birth_date FROM customers ORDER BY id")
                found = await connection.fetch("FETCH 4 FROM c")
                assert [tuple(row) for row in found] == [(number, REDACTED, None) for number in range(1, 5)]
                found = await connection.fetch("FETCH 4 FROM c")
                assert [row["id"] for row in found] == [5, 6, 7, 8]
        finally:
            await connection.close()

    asyncio.run(run())


@pytest.fixture(scope="module")
def changing(fresh_gateway, trust):
    gateway = fresh_gateway("changing-cursors").trust(trust.entry()).start()
    yield gateway
    gateway.stop()


def test_neither_cursor_nor_prepared_statement_survives_a_stricter_policy(changing, trust):
    changing.policy(POLICY)
    dsn = changing.dsn(trust.token("agent-7", ["agents"]))

    def fresh():
        with psycopg.connect(dsn.text(), autocommit=True) as new:
            return new.execute("SELECT email FROM customers WHERE id = 1").fetchone()[0]

    wait_until("the first policy holds", lambda: fresh() == REDACTED)
    with wire.Connection("127.0.0.1", changing.port) as connection:
        session = connection.login(dsn)
        assert not sqlstates(query(session, "PREPARE p AS SELECT email FROM customers ORDER BY id LIMIT 1"))
        assert not sqlstates(query(session, "BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers ORDER BY id"))
        assert rows(query(session, "FETCH 1 FROM c")) == [[REDACTED.encode()]]
        changing.policy(STRICTER)
        wait_until("the new policy holds", lambda: fresh() is None)
        answer = query(session, "FETCH 1 FROM c")
        assert sqlstates(answer) == ["26000"] and not rows(answer)
        assert not sqlstates(query(session, "ROLLBACK")) and not sqlstates(query(session, "BEGIN; DECLARE c CURSOR FOR SELECT email FROM customers ORDER BY id"))
        assert rows(query(session, "FETCH 1 FROM c")) == [[None]]
        assert rows(query(session, "EXECUTE p")) == [[None]]
        assert sqlstates(session.cycle(wire.execute("c", 1), wire.SYNC)) == []
