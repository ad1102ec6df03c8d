"""A `limit` by rows in every form of reading: what is within it leaves, what is past it does not, a write that returns too
much is not there, what a human approved counts as well, and a gateway that dies forgets nothing of it."""

import json
import signal

import pytest

from lib import wire
from lib.yaml_text import dump
from streams import COPY_DONE, admin, copy_data, session, tags_of
from test_approvals_of_statements import Held
from test_counted_limits import limit, pulled

ROWS = 100
SCHEMA = "DROP SCHEMA IF EXISTS counted CASCADE; CREATE SCHEMA counted; GRANT USAGE ON SCHEMA counted TO PUBLIC;" + "".join(
    f"CREATE TABLE counted.{name} (id integer PRIMARY KEY, email text NOT NULL, state text NOT NULL DEFAULT 'old');"
    f"INSERT INTO counted.{name} SELECT i, 'mail' || i || '@example.com' FROM generate_series(1, 500) i;"
    f"GRANT ALL ON counted.{name} TO PUBLIC;"
    for name in ("one", "both")
)
POLICY = dump({
    "version": 1,
    "labels": {"shop": {"email": ["counted.one.email", "counted.both.email"]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop", "allow": ["all"]},
        limit("rows", ["one"], {"rows": ROWS}),
        limit("both", ["both"], {"rows": 3 * ROWS}),
        {"id": "bulk", "who": {"groups": ["agents"]}, "target": "shop", "relations": ["counted.both"],
         "hold": {"rows": ROWS, "approvers": {"groups": ["dpo"]}, "mode": "async", "expires": "5m"}},
    ],
})


@pytest.fixture(scope="module")
def one(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    made = fresh_gateway("limits-in-forms", policy=POLICY).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"]}}
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA counted CASCADE")


def ask(connection, sql):
    """How many rows came, how it ended, the state of the transaction behind it."""
    heard = connection.cycle(wire.query(sql))
    tags = [tag for tag in tags_of(heard) if tag not in "THcNS"]
    return len([tag for tag in tags if tag in "Dd"]), tags[-2], heard[-1][1].decode()


READ = "SELECT id, email FROM counted.one"
FORMS = {
    "COPY": ([], "COPY counted.one TO STDOUT", 0),
    "COPY csv": ([], f"COPY ({READ}) TO STDOUT (FORMAT csv)", 0),
    "EXECUTE": ([f"PREPARE q AS {READ}"], "EXECUTE q", 0),
    "FETCH": (["BEGIN", f"DECLARE c CURSOR FOR {READ}", "FETCH 60 FROM c"], "FETCH 60 FROM c", 60),
    "FETCH again": (["BEGIN", f"DECLARE c SCROLL CURSOR FOR {READ}", "FETCH 60 FROM c", "MOVE ABSOLUTE 0 FROM c"], "FETCH 60 FROM c", 60),
    "two in one Query": ([f"{READ} WHERE id <= 60"], f"SELECT 1; {READ} WHERE id <= 60", 60),
    "in a block": (["BEGIN", f"{READ} WHERE id <= 60"], READ, 60),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_ends_at_the_limit(one, form):
    before, sql, taken = FORMS[form]
    with session(one.agent()[1]) as connection:
        for step in before:
            assert ask(connection, step)[1] == "C", step
        rows, ended, state = ask(connection, sql)
        assert (rows - (form == "two in one Query"), ended) == (ROWS - taken, "53400")
        assert state == ("E" if "BEGIN" in before else "I")
        ask(connection, "ROLLBACK")
        assert ask(connection, "SELECT 1") == (1, "C", "I")
        assert ask(connection, f"{READ} LIMIT 1")[:2] == (0, "53400")


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_a_write_that_returns_past_the_limit_is_not_there(one, shop, extended):
    sql = "UPDATE counted.one SET state = 'new' WHERE id <= {} RETURNING id"
    with session(one.agent()[1]) as connection:
        rows, error = pulled(connection, sql.format(ROWS + 1), extended)
        assert rows <= ROWS and error["C"] == "53400"
        assert admin(shop, "SELECT count(*) FROM counted.one WHERE state = 'new'") == [(0,)]
    with session(one.agent()[1]) as connection:
        assert pulled(connection, sql.format(ROWS), extended) == (ROWS, None)
        assert admin(shop, "SELECT count(*) FROM counted.one WHERE state = 'new'") == [(ROWS,)]
    admin(shop, "UPDATE counted.one SET state = 'old'")


def test_what_was_approved_counts_against_the_limit_and_ends_at_it(one):
    name, dsn = one.agent()
    with session(dsn) as connection:
        for sql, rows, ended in (
            ("SELECT id FROM counted.both WHERE id <= 150", 150, "C"),
            ("SELECT id FROM counted.both WHERE id <= 201", 150, "53400"),
        ):
            assert ask(connection, sql) == (0, "YG001", "I")
            assert one.command("approve", one.waiting(name))[0] == 0
            assert ask(connection, sql) == (rows, ended, "I")


@pytest.mark.parametrize("relation", ["one", "both"])
@pytest.mark.parametrize("in_block", [False, True])
def test_what_a_client_copies_in_is_taken_and_counts_for_nothing(one, shop, relation, in_block):
    _, dsn = one.agent()
    with session(dsn) as connection:
        if in_block:
            connection.cycle(wire.query("BEGIN"))
        for row in ("1001\tmail\tnew\n", "1002\tmail\tnew\n"):
            connection.send(wire.query(f"COPY counted.{relation} FROM STDIN"))
            connection.receive_until("G")
            assert tags_of(connection.cycle(copy_data(row), COPY_DONE)) == ["C", "Z"]
        if in_block:
            assert connection.cycle(wire.query("COMMIT"))[-1] == ("Z", b"I")
        assert ask(connection, f"SELECT id FROM counted.{relation} WHERE id <= {ROWS}") == (ROWS, "C", "I")
        assert ask(connection, f"SELECT id FROM counted.{relation} WHERE id > {ROWS}")[0] == 0
    assert admin(shop, f"DELETE FROM counted.{relation} WHERE id > 1000 RETURNING id") == [(1001,), (1002,)]


def test_what_has_left_is_counted_after_a_kill(one):
    name, dsn = one.agent()
    with session(dsn) as connection:
        assert pulled(connection, f"{READ} WHERE id <= 80") == (80, None)
        one.gateway.process.send_signal(signal.SIGKILL)
        one.gateway.process.wait(10)
    one.gateway.run.forget(one.gateway.process)
    one.gateway.start(level="debug")
    with session(one.gateway.dsn(one.trust.token(name, ["agents"]))) as connection:
        rows, error = pulled(connection, READ)
        assert rows <= 20 and error["C"] == "53400"
        assert json.loads(error["D"])["code"] == "row_limit"
