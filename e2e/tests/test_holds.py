"""`hold`: rows are counted as they come, and nothing of a result leaves before it is known that it is within the threshold
or a human has agreed. What is not agreed to leaves client and server in step, in and out of blocks, in both protocols."""

import json
import re
import threading

import psycopg
import pytest

from lib import wire
from lib.yaml_text import dump
from streams import admin

SCHEMA = """
DROP SCHEMA IF EXISTS held CASCADE;
CREATE SCHEMA held;
CREATE TABLE held.people (id integer PRIMARY KEY, name text NOT NULL, email text NOT NULL, city text NOT NULL);
INSERT INTO held.people SELECT i, 'name ' || i, 'mail' || i || '@example.com', 'city ' || i % 7 FROM generate_series(1, 500) i;
CREATE TABLE held.notes (id integer PRIMARY KEY, note text NOT NULL);
INSERT INTO held.notes SELECT i, 'note ' || i FROM generate_series(1, 500) i;
GRANT USAGE ON SCHEMA held TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA held TO shop_reader, shop_dpo;
"""

HOLD = {"rows": 100, "approvers": {"groups": ["dpo"]}, "wait": "1s"}

POLICY = {
    "version": 1,
    "labels": {"shop": {"email": ["held.people.email"]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop",
         "allow": ["read", "insert", "update", "delete"]},
        {"id": "bulk", "who": {"groups": ["agents"]}, "target": "shop", "hold": HOLD},
    ],
}
PATIENT = [
    {"id": "all-too", "who": {"groups": ["patient"]}, "target": "shop", "allow": ["read"]},
    {"id": "long", "who": {"groups": ["patient"]}, "target": "shop", "hold": {**HOLD, "wait": "60s"}},
]


@pytest.fixture(scope="module")
def held(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    policy = dump({**POLICY, "rules": [*POLICY["rules"], *PATIENT]})
    made = fresh_gateway("held", policy=policy).trust(trust.entry()).start(level="debug")
    yield made
    made.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


NUMBER = iter(range(1, 1_000_000))


def somebody(held, trust):
    """An agent that nobody has seen yet: its budget is whole."""
    return held.dsn(trust.token(f"agent-{next(NUMBER)}", ["agents"]))


def payload(error):
    return json.loads(error.diag.message_detail)


def test_what_is_within_the_threshold_leaves(held, trust):
    with psycopg.connect(somebody(held, trust).text(), autocommit=True) as connection:
        assert len(connection.execute("SELECT id, name FROM held.people WHERE id <= 40").fetchall()) == 40
        assert len(connection.execute("SELECT id, name FROM held.people WHERE id <= 60 ORDER BY id").fetchall()) == 60
        assert len(connection.execute("SELECT * FROM held.notes").fetchall()) == 500, "no label, no hold"


@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("extended", [False, True])
def test_what_is_past_it_does_not_leave_and_both_sides_stay_in_step(held, trust, extended, in_block):
    dsn = somebody(held, trust)
    sql = "SELECT id, name FROM held.people"
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        if in_block:
            connection.cycle(wire.query("BEGIN"))
        sent = wire.parse(sql) + wire.bind() + wire.describe() + wire.execute() + wire.SYNC if extended else wire.query(sql)
        heard = connection.cycle(sent)
        tags = b"".join(tag if isinstance(tag, bytes) else tag.encode() for tag, _ in heard)
        assert b"D" not in tags and b"C" not in tags, tags
        assert tags.endswith(b"EZ"), tags
        error = next(body for tag, body in heard if tag in ("E", b"E"))
        assert b"CYG001\0" in error and b"approval_pending" in error
        assert heard[-1][1] == (b"E" if in_block else b"I")
        if in_block:
            assert b"25P02" in connection.cycle(wire.query("SELECT 1"))[0][1]
            connection.cycle(wire.query("ROLLBACK"))
        after = connection.cycle(wire.query("SELECT count(*) FROM held.people"))
        assert [tag for tag, _ in after][-1:] == [heard[-1][0]] and any(b"500" in body for _, body in after)


def test_chains_of_small_pulls_reach_the_same_limit(held, trust):
    with psycopg.connect(somebody(held, trust).text(), autocommit=True) as connection:
        seen = 0
        with pytest.raises(psycopg.Error) as refused:
            for offset in range(0, 500, 30):
                seen += len(connection.execute(f"SELECT name FROM held.people ORDER BY id LIMIT 30 OFFSET {offset}").fetchall())
        assert refused.value.sqlstate == "YG001"
        assert 70 <= seen <= 100
        assert re.fullmatch(r"apr_\w+", payload(refused.value)["retry"]["approval"])


def test_a_write_that_returns_too_much_is_taken_back(held, trust, shop):
    """Outside a block in the simple protocol it runs in a transaction of the gateway's; in the extended one before Sync."""
    dsn = somebody(held, trust)
    sql = "UPDATE held.people SET city = 'changed' WHERE id > 0 RETURNING id, name"
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        for sent in (wire.query(sql), wire.parse(sql) + wire.bind() + wire.execute() + wire.SYNC):
            heard = connection.cycle(sent)
            assert [tag for tag, _ in heard][-2:] == ["E", "Z"] and heard[-1][1] == b"I", heard
            assert b"YG001" in heard[-2][1]
        with psycopg.connect(shop.admin.text()) as truth:
            assert truth.execute("SELECT count(*) FROM held.people WHERE city = 'changed'").fetchone() == (0,)
        few = connection.cycle(wire.query("UPDATE held.people SET city = 'few' WHERE id <= 5 RETURNING id"))
        assert [tag for tag, _ in few] == ["T", *"DDDDD", "C", "Z"] and few[-1][1] == b"I"
        with psycopg.connect(shop.admin.text()) as truth:
            assert truth.execute("SELECT count(*) FROM held.people WHERE city = 'few'").fetchone() == (5,)


def test_a_counted_write_does_not_end_an_open_batch(held, trust, shop):
    """It would commit the batch and itself before anybody knows how much it was."""
    dsn = somebody(held, trust)
    write = wire.query("UPDATE held.people SET city = 'batched' WHERE id > 0 RETURNING id, name")
    ahead = wire.parse("BEGIN") + wire.bind() + wire.execute() + wire.SYNC + wire.parse("COMMIT") + wire.bind() + wire.execute()
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        for before in (wire.parse("SELECT 1") + wire.bind() + wire.execute(), ahead):
            connection.send(before + write)
            heard = []
            while not any(tag == "E" for tag, _ in heard) or heard[-1][0] != "Z":
                heard.append(connection.receive())
            assert b"C58030\0" in next(body for tag, body in heard if tag == "E")
            connection.cycle(wire.query("ROLLBACK"))
        with psycopg.connect(shop.admin.text()) as truth:
            assert truth.execute("SELECT count(*) FROM held.people WHERE city = 'batched'").fetchone() == (0,)


def test_the_count_goes_on_over_fetches(held, trust):
    dsn = somebody(held, trust)
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        connection.cycle(wire.query("BEGIN"))
        connection.cycle(wire.parse("SELECT id, name FROM held.people") + wire.bind("p") + wire.SYNC)
        tags = []
        for _ in range(4):
            heard = connection.cycle(wire.execute("p", 40) + wire.SYNC)
            tags.append("".join(tag for tag, _ in heard))
        assert tags == ["D" * 40 + "sZ", "D" * 40 + "sZ", "EZ", "EZ"]
        assert heard[-1][1] == b"E"
        connection.cycle(wire.query("ROLLBACK"))
    with psycopg.connect(somebody(held, trust).text()) as connection:
        connection.execute("DECLARE c CURSOR FOR SELECT id, name FROM held.people")
        assert [len(connection.execute("FETCH 45 FROM c").fetchall()) for _ in range(2)] == [45, 45]
        with pytest.raises(psycopg.Error) as refused:
            connection.execute("FETCH 45 FROM c")
        assert refused.value.sqlstate == "42501"


@pytest.mark.parametrize("sql", ["COPY held.people (id, name) TO STDOUT", "COPY (SELECT name FROM held.people) TO STDOUT (FORMAT csv)"])
def test_copy_is_counted_as_rows_are(held, trust, sql):
    with psycopg.connect(somebody(held, trust).text(), autocommit=True) as connection:
        with pytest.raises(psycopg.Error) as refused, connection.cursor().copy(sql) as copy:
            assert [bytes(data) for data in copy] == []
        assert refused.value.sqlstate == "YG001"
        with connection.cursor().copy("COPY (SELECT name FROM held.people WHERE id <= 7) TO STDOUT") as copy:
            assert len(list(copy.rows())) == 7


def test_rows_count_as_often_as_they_stand_in_a_row(held, trust):
    four = "SELECT a.name, b.name, c.name, d.name FROM held.people a, held.people b, held.people c, held.people d " \
        "WHERE a.id <= 3 AND b.id <= 3 AND c.id <= 3 AND d.id = 1"
    packed = "SELECT {} FROM held.people"
    for sql in (four, *(packed.format(f) for f in ("array_agg(name)", "json_agg(name)", "string_agg(name, ',')"))):
        with psycopg.connect(somebody(held, trust).text(), autocommit=True) as connection:
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(sql).fetchall()
            assert refused.value.sqlstate == "YG001", sql
            assert connection.execute("SELECT count(*) FROM held.people").fetchone() == (500,)


def test_a_client_that_cancels_or_leaves_withdraws(held, trust):
    dsn = held.dsn(trust.token("patient", ["patient"]))
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        # Whoever waits is told that it does.
        connection.add_notice_handler(lambda _: threading.Thread(target=connection.cancel_safe).start())
        with pytest.raises(psycopg.Error) as cancelled:
            connection.execute("SELECT id, name FROM held.people")
        assert cancelled.value.sqlstate == "57014"
        assert connection.execute("SELECT count(*) FROM held.people").fetchone() == (500,)
