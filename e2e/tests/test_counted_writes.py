"""`hold: {affected}`: a write that changes more rows than a rule lets pass leaves nothing behind, and after a human agreed the
identical statement commits. What nobody can count, or would be a second write of its own, is held before it runs."""

import json

import psycopg
import pytest

from lib import wire
from lib.yaml_text import dump
from streams import COPY_DONE, admin, copy_data, copy_fail, session, tags_of
from test_approvals_of_statements import Held
from test_holds import POLICY

SCHEMA = """
DROP SCHEMA IF EXISTS written CASCADE;
CREATE SCHEMA written;
CREATE TABLE written.stock (id integer PRIMARY KEY, email text NOT NULL, state text NOT NULL);
INSERT INTO written.stock SELECT i, 'mail' || i, 'old' FROM generate_series(1, 200) i;
CREATE TABLE written.source (id integer PRIMARY KEY);
INSERT INTO written.source SELECT i FROM generate_series(1001, 1100) i;
CREATE TABLE written.owner (id integer PRIMARY KEY, note text);
CREATE TABLE written.owned (owner integer REFERENCES written.owner ON DELETE CASCADE, email text NOT NULL);
CREATE TABLE written.tree (id integer PRIMARY KEY, above integer REFERENCES written.tree ON DELETE CASCADE, email text NOT NULL);
INSERT INTO written.owner SELECT i, 'x' FROM generate_series(1, 3) i;
INSERT INTO written.owned SELECT 1, 'mail' || i FROM generate_series(1, 50) i;
INSERT INTO written.tree SELECT i, nullif(i / 2, 0), 'mail' || i FROM generate_series(1, 50) i;
GRANT USAGE ON SCHEMA written TO PUBLIC;
GRANT ALL ON ALL TABLES IN SCHEMA written TO shop_reader, shop_dpo;
"""
AFFECTED = 10
RULE = {
    "id": "many", "who": {"groups": ["agents"]}, "target": "shop",
    "hold": {"affected": AFFECTED, "approvers": {"groups": ["dpo"]}, "mode": "async", "expires": "5m"},
}
ALLOW = {
    "id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop", "allow": ["all"],
    "unbounded_writes": "allow",
}


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    policy = {**POLICY, "labels": {"shop": {"email": ["written.*.email"]}}, "rules": [ALLOW, RULE]}
    made = fresh_gateway("written", policy=dump(policy)).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"]}}
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA written CASCADE")


@pytest.fixture
def stock(shop, gateway):
    """What is in the table, read past the gateway; as at first before each test."""
    admin(
        shop,
        "TRUNCATE written.stock;"
        "INSERT INTO written.stock SELECT i, 'mail' || i, 'old' FROM generate_series(1, 200) i",
    )
    return lambda: admin(shop, "SELECT count(*), count(*) FILTER (WHERE state = 'new') FROM written.stock")[0]


SOURCE = "SELECT id, 'mail', 'new' FROM written.source WHERE id <= {}"
# With a number that is in them once: of rows that they change; and what they leave in the table of 200.
WRITES = {
    "update": ("UPDATE written.stock SET state = 'new' WHERE id <= {}", lambda rows: (200, rows), 0),
    "delete": ("DELETE FROM written.stock WHERE id <= {}", lambda rows: (200 - rows, 0), 0),
    "insert": (f"INSERT INTO written.stock {SOURCE}", lambda rows: (200 + rows, rows), 1000),
    "values": (
        "INSERT INTO written.stock SELECT i, 'mail', 'new' FROM generate_series(1001, {}) i", lambda rows: (200 + rows, rows), 1000,
    ),
    "merge": (
        f"MERGE INTO written.stock t USING ({SOURCE}) s (id, email, state) ON t.id = s.id"
        " WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.email, s.state)", lambda rows: (200 + rows, rows), 1000,
    ),
    "returning": ("UPDATE written.stock SET state = 'new' WHERE id <= {} RETURNING id", lambda rows: (200, rows), 0),
}
UNCHANGED = (200, 0)


def sent(sql, extended):
    return wire.parse(sql) + wire.bind() + wire.describe() + wire.execute() + wire.SYNC if extended else wire.query(sql)


def outcome(heard):
    """How it ended, and the state of the transaction behind it. What leaves a row leaves it before one of these."""
    return [tag for tag in tags_of(heard) if tag not in "12nTt"], heard[-1][1]


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("write", WRITES)
def test_as_many_as_allowed_are_committed_and_more_are_not_there(gateway, stock, write, extended):
    sql, left, base = WRITES[write]
    _, dsn = gateway.agent()
    with session(dsn) as connection:
        rows, ended = outcome(connection.cycle(sent(sql.format(base + AFFECTED), extended)))
        assert [tag for tag in rows if tag != "D"] == ["C", "Z"] and ended == b"I", rows
        assert stock() == left(AFFECTED)


@pytest.mark.parametrize("relation, behind", [("owner", "owned"), ("tree", "tree")])
def test_what_a_foreign_key_would_change_is_asked_about_before_it_is_changed(gateway, shop, relation, behind):
    rows = lambda: admin(shop, f"SELECT count(*) FROM written.{behind}")[0][0]
    name, dsn = gateway.agent()
    one = wire.query(f"DELETE FROM written.{relation} WHERE id = 1")
    with session(dsn) as connection:
        # The server says "DELETE 1" of each of them.
        assert outcome(connection.cycle(one)) == (["YG001", "Z"], b"I")
        assert rows() == 50
        if relation == "owner":
            renamed = wire.query("UPDATE written.owner SET note = 'y' WHERE id = 1")
            assert outcome(connection.cycle(renamed)) == (["C", "Z"], b"I"), "no key is changed"
        assert gateway.command("approve", gateway.waiting(name))[0] == 0
        assert outcome(connection.cycle(one)) == (["C", "Z"], b"I")
        assert rows() == 0


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("write", WRITES)
def test_too_many_change_nothing_and_after_a_yes_the_identical_statement_commits(gateway, stock, write, extended):
    sql, left, base = WRITES[write]
    many = sent(sql.format(base + AFFECTED + 1), extended)
    name, dsn = gateway.agent()
    with session(dsn) as connection:
        assert outcome(connection.cycle(many)) == (["YG001", "Z"], b"I")
        assert stock() == UNCHANGED
        assert gateway.command("approve", gateway.waiting(name))[0] == 0
        tags, ended = outcome(connection.cycle(many))
        assert [tag for tag in tags if tag != "D"] == ["C", "Z"] and ended == b"I", tags
        assert stock() == left(AFFECTED + 1)


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_in_a_block_the_block_fails_and_a_savepoint_keeps_what_was_before(gateway, stock, extended):
    few, many = (sent(WRITES["update"][0].format(rows), extended) for rows in (3, AFFECTED + 1))
    name, dsn = gateway.agent()
    with session(dsn) as connection:
        connection.cycle(wire.query("BEGIN"))
        assert outcome(connection.cycle(few)) == (["C", "Z"], b"T")
        assert outcome(connection.cycle(many)) == (["YG001", "Z"], b"E")
        assert outcome(connection.cycle(few)) == (["25P02", "Z"], b"E")
        assert outcome(connection.cycle(wire.query("COMMIT")))[1] == b"I"
        assert stock() == UNCHANGED, "a block that failed is not committed"
        connection.cycle(wire.query("BEGIN"))
        assert outcome(connection.cycle(few)) == (["C", "Z"], b"T")
        connection.cycle(wire.query("SAVEPOINT s"))
        assert outcome(connection.cycle(many)) == (["YG001", "Z"], b"E")
        assert outcome(connection.cycle(wire.query("ROLLBACK TO s"))) == (["C", "Z"], b"T")
        assert outcome(connection.cycle(wire.query("COMMIT"))) == (["C", "Z"], b"I")
        assert stock() == (200, 3)
        assert gateway.command("approve", gateway.waiting(name))[0] == 0
        connection.cycle(wire.query("BEGIN"))
        assert outcome(connection.cycle(many)) == (["C", "Z"], b"T")
        assert stock() == (200, 3)
        assert outcome(connection.cycle(wire.query("COMMIT"))) == (["C", "Z"], b"I")
        assert stock() == (200, AFFECTED + 1)


def test_in_a_batch_what_stood_before_it_goes_too(gateway, stock):
    _, dsn = gateway.agent()
    steps = [WRITES["update"][0].format(rows) for rows in (2, AFFECTED + 1, 1)]
    with session(dsn) as connection:
        heard = connection.cycle(*(wire.parse(sql) + wire.bind() + wire.execute() for sql in steps), wire.SYNC)
        assert outcome(heard) == (["C", "YG001", "Z"], b"I")
        assert stock() == UNCHANGED


@pytest.mark.parametrize("order", [[2, AFFECTED + 1], [AFFECTED + 1, 2]])
def test_a_query_of_several_writes_is_done_whole_or_not_at_all(gateway, stock, order):
    _, dsn = gateway.agent()
    text = "; ".join(WRITES["update"][0].format(rows) for rows in order)
    with session(dsn) as connection:
        tags, ended = outcome(connection.cycle(wire.query(text)))
        assert tags[-2:] == ["YG001", "Z"] and ended == b"I", tags
        assert stock() == UNCHANGED
        few = "; ".join(WRITES["update"][0].format(rows) for rows in (2, 3))
        assert outcome(connection.cycle(wire.query(few))) == (["C", "C", "Z"], b"I")
        assert stock() == (200, 3)


@pytest.mark.parametrize("text", ["BEGIN; {}; COMMIT", "{}; COMMIT; {}", "BEGIN; {}", "{}; ROLLBACK"])
def test_a_query_that_ends_transactions_around_a_counted_write_is_refused(gateway, stock, text):
    _, dsn = gateway.agent()
    write = WRITES["update"][0].format(1)
    with session(dsn) as connection:
        heard = connection.cycle(wire.query(text.format(write, write)))
        [error] = [wire.error_fields(body) for tag, body in heard if tag == "E"]
        assert outcome(heard)[0][-1] == "Z" and heard[-1][1] == b"I"
        assert "BEGIN and COMMIT" in error.get("H", "") + error["M"], error
        assert stock() == UNCHANGED
        for step in ("BEGIN", write, "COMMIT"):
            assert "C" in outcome(connection.cycle(wire.query(step)))[0]
        assert stock() == (200, 1)


BEFORE = {
    "with": "WITH w AS (UPDATE written.stock SET state = 'new' WHERE id <= 2 RETURNING id) SELECT count(*) FROM w",
    "truncate": "TRUNCATE written.stock",
}


@pytest.mark.parametrize("form", BEFORE)
def test_what_cannot_be_counted_is_held_before_it_runs(gateway, stock, form):
    name, dsn = gateway.agent()
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        with pytest.raises(psycopg.Error) as pending:
            connection.execute(BEFORE[form])
        assert pending.value.sqlstate == "YG001" and stock() == UNCHANGED
        approval = json.loads(pending.value.diag.message_detail)["retry"]["approval"]
        assert gateway.command("approve", approval)[0] == 0
        connection.execute(BEFORE[form])
        assert stock() == ((0, 0) if form == "truncate" else (200, 2))


NEW = copy_data("1001\tmail\tnew\n") + COPY_DONE
# How it ends after a yes, and what it leaves.
ENDS = {
    "done": (NEW, "C", (201, 1)),
    "in pieces": (b"".join(copy_data(piece) for piece in ("10", "01\tmail\tne", "w\n")) + COPY_DONE, "C", (201, 1)),
    "one that is there": (copy_data("7\tmail\tnew\n") + COPY_DONE, "23505", UNCHANGED),
    "taken back by the client": (copy_data("1001\tmail\tnew\n") + copy_fail(), "57014", UNCHANGED),
}


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("end", ENDS)
def test_copy_in_is_held_before_a_row_is_taken_and_after_a_yes_takes_them_once(gateway, stock, end, extended):
    data, ended, left = ENDS[end]
    sql = "COPY written.stock FROM STDIN"
    copy = wire.parse(sql) + wire.bind() + wire.execute() + wire.FLUSH if extended else wire.query(sql)
    behind = wire.SYNC if extended else b""
    name, dsn = gateway.agent()
    with session(dsn) as connection:
        assert outcome(connection.cycle(copy, behind)) == (["YG001", "Z"], b"I"), "no CopyInResponse"
        assert stock() == UNCHANGED
        assert gateway.command("approve", gateway.waiting(name))[0] == 0
        connection.send(copy)
        connection.receive_until("G")
        assert outcome(connection.cycle(data, behind)) == ([ended, "Z"], b"I")
        assert stock() == left
        assert outcome(connection.cycle(copy, behind)) == (["YG001", "Z"], b"I"), "one yes is for one run"
        assert outcome(connection.cycle(wire.query("SELECT 1")))[0] == ["D", "C", "Z"]
        assert stock() == left


def test_in_a_block_a_copy_in_after_a_yes_is_the_blocks(gateway, stock):
    name, dsn = gateway.agent()
    copy = wire.query("COPY written.stock FROM STDIN")
    with session(dsn) as connection:
        connection.cycle(wire.query("BEGIN"))
        assert outcome(connection.cycle(copy)) == (["YG001", "Z"], b"E")
        connection.cycle(wire.query("ROLLBACK"))
        assert gateway.command("approve", gateway.waiting(name))[0] == 0
        connection.cycle(wire.query("BEGIN"))
        connection.send(copy)
        connection.receive_until("G")
        assert outcome(connection.cycle(NEW)) == (["C", "Z"], b"T")
        assert stock() == UNCHANGED
        assert outcome(connection.cycle(wire.query("COMMIT"))) == (["C", "Z"], b"I")
        assert stock() == (201, 1)
