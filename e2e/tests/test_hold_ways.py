"""The ways in which a rule holds, where a statement cannot wait, and the many forms in which rows are read: each is held
alike, nothing of it is at the socket before a human said so, and the session goes on."""

import json
import threading

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin, session, tags_of
from test_approvals_of_statements import Held, Reader

ROWS = 100
TABLES = ("people", "sized", "kinds", "whole", "never", "later")
SCHEMA = "DROP SCHEMA IF EXISTS ways CASCADE; CREATE SCHEMA ways; GRANT USAGE ON SCHEMA ways TO PUBLIC;" + "".join(
    f"CREATE TABLE ways.{name} (id integer PRIMARY KEY, email text NOT NULL);"
    f"INSERT INTO ways.{name} SELECT i, 'mail' || i || '@example.com' FROM generate_series(1, 500) i;"
    f"GRANT ALL ON ways.{name} TO PUBLIC;"
    for name in TABLES
) + """
CREATE TABLE ways.large (id integer PRIMARY KEY, email text NOT NULL);
ALTER TABLE ways.large ALTER email SET STORAGE EXTERNAL;
INSERT INTO ways.large SELECT i, repeat(chr(96 + i), 5000000) FROM generate_series(1, 3) i;
GRANT ALL ON ways.large TO PUBLIC;
"""


def rule(name, relations, **more):
    return {
        "id": name, "who": {"groups": ["agents"]}, "target": "shop", "relations": [f"ways.{name}" for name in relations], **more,
    }


def hold(**more):
    return {"approvers": {"groups": ["dpo"]}, "wait": "60s", "expires": "5m", **more}


POLICY = dump({
    "version": 1,
    "labels": {"shop": {"email": [f"ways.{name}.email" for name in (*TABLES, "large")]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop", "allow": ["all"]},
        rule("rows", ["people", "large"], hold=hold(rows=ROWS)),
        rule("bytes", ["sized"], hold=hold(bytes="1KiB", mode="async")),
        rule("kinds", ["kinds"], hold=hold(mode="async"), statements=["copy_out", "delete"]),
        rule("whole", ["whole"], hold=hold(rows=ROWS, mode="async"), unbounded="hold"),
        rule("never", ["never"], hold=hold(rows=ROWS, mode="async"), unbounded="deny"),
        rule("later", ["later"], hold=hold(rows=ROWS, mode="async")),
    ],
})


@pytest.fixture(scope="module")
def held(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    made = fresh_gateway("ways", policy=POLICY).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"]}}
    made.config["targets"]["shop"]["postgres"]["held_max"] = 1
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA ways CASCADE")


def asked(connection, sql):
    """The rows of a Query, or the error it ends with: its SQLSTATE and its code. None of its rows came then."""
    heard = connection.cycle(wire.query(sql))
    errors = [wire.error_fields(body) for tag, body in heard if tag == "E"]
    if not errors:
        return tags_of(heard).count("D") + tags_of(heard).count("d")
    assert not {"D", "d"} & set(tags_of(heard)), sql
    return errors[0]["C"], json.loads(errors[0]["D"])["code"]


PENDING = ("YG001", "approval_pending")
WAYS = {
    "bytes, few": ("SELECT email FROM ways.sized WHERE id <= 25", 25),
    "bytes, many": ("SELECT email FROM ways.sized WHERE id <= 80", PENDING),
    "bytes, packed": ("SELECT string_agg(email, ',') FROM ways.sized", PENDING),
    "kind of statement: copy": ("COPY ways.kinds TO STDOUT", PENDING),
    "kind of statement: copy of a query": ("COPY (SELECT id FROM ways.kinds WHERE id = 1) TO STDOUT", PENDING),
    "kind of statement: delete": ("DELETE FROM ways.kinds WHERE id = 0", PENDING),
    "kind of statement: another": ("SELECT * FROM ways.kinds", 500),
    "whole": ("SELECT id FROM ways.whole", PENDING),
    "whole, with a condition": ("SELECT id FROM ways.whole WHERE id <= 9", 9),
    "whole, with a LIMIT": ("SELECT id FROM ways.whole LIMIT 10", 10),
    "whole, with too wide a LIMIT": ("SELECT id FROM ways.whole LIMIT 101", PENDING),
    "never whole": ("SELECT id FROM ways.never", ("42501", "unbounded_read")),
    "never whole, with a condition": ("SELECT id FROM ways.never WHERE id <= 9", 9),
    "not now": ("SELECT id FROM ways.later WHERE id <= 101", PENDING),
    "not now, few": ("SELECT id FROM ways.later WHERE id <= 100", 100),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_holds_what_it_is_about_and_lets_the_rest_through(held, way):
    sql, expected = WAYS[way]
    with session(held.agent()[1]) as connection:
        assert asked(connection, sql) == expected
        assert asked(connection, "SELECT 1") == 1


def test_who_is_told_at_once_collects_after_a_yes(held):
    name, dsn = held.agent()
    with session(dsn) as connection:
        for sql, rows in (("SELECT id FROM ways.whole", 500), ("COPY ways.kinds TO STDOUT", 500)):
            assert asked(connection, sql) == PENDING
            assert held.command("approve", held.waiting(name))[0] == 0
            assert asked(connection, sql) == rows
            assert asked(connection, sql) == PENDING
            assert held.command("deny", held.waiting(name), "--reason", "enough")[0] == 0


def test_in_a_block_that_has_written_nobody_waits(held):
    """Locks would wait with it."""
    with session(held.agent()[1]) as connection:
        for step in ("BEGIN", "UPDATE ways.kinds SET email = email WHERE id = 1"):
            assert tags_of(connection.cycle(wire.query(step)))[-2:] == ["C", "Z"]
        heard = connection.cycle(wire.query("SELECT id FROM ways.people"))
        assert [tag for tag in tags_of(heard) if tag not in "TSN"] == ["YG001", "Z"] and heard[-1][1] == b"E"
        assert "N" not in tags_of(heard), "a notice comes after two seconds of waiting"
        connection.cycle(wire.query("ROLLBACK"))
        assert asked(connection, "SELECT count(*) FROM ways.kinds") == 1


def test_where_as_many_wait_as_may_the_next_is_told_at_once(held):
    name, dsn = held.agent()
    waits = Reader(dsn, wire.query("SELECT id FROM ways.people"))
    approval = held.waiting(name)
    with session(held.agent()[1]) as connection:
        assert asked(connection, "SELECT id FROM ways.people") == PENDING
    assert "E" not in waits.tags() and held.command("approve", approval)[0] == 0
    assert waits.all() == "T" + "D" * 500 + "CZ"


READ = "SELECT id, email FROM ways.people"
FORMS = {
    "EXECUTE": (["PREPARE q AS " + READ], "EXECUTE q", "D"),
    "EXECUTE with a value": ([f"PREPARE q (integer) AS {READ} WHERE id > $1"], "EXECUTE q (0)", "D"),
    "FETCH ALL": (["BEGIN", f"DECLARE c CURSOR FOR {READ}"], "FETCH ALL FROM c", "D"),
    "FETCH after MOVE": (["BEGIN", f"DECLARE c SCROLL CURSOR FOR {READ}", "MOVE ALL FROM c", "MOVE ABSOLUTE 0 FROM c"], "FETCH 500 FROM c", "D"),
    "FETCH backwards": (["BEGIN", f"DECLARE c SCROLL CURSOR FOR {READ}", "MOVE ALL FROM c"], "FETCH BACKWARD ALL FROM c", "D"),
    "after EXPLAIN": ([f"EXPLAIN {READ}"], READ, "D"),
    "COPY text": ([], "COPY ways.people TO STDOUT", "d"),
    "COPY csv": ([], "COPY ways.people TO STDOUT (FORMAT csv)", "d"),
    "COPY binary": ([], "COPY ways.people TO STDOUT (FORMAT binary)", "d"),
    "COPY query": ([], f"COPY ({READ}) TO STDOUT", "d"),
    "VALUES beside it": ([], f"VALUES (0, 'x') UNION ALL {READ}", "D"),
    "TABLE": ([], "TABLE ways.people", "D"),
    "join": ([], "SELECT k.id, p.email FROM ways.kinds k JOIN ways.people p USING (id)", "D"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_reading_waits_and_then_is_whole(held, form):
    before, sql, data = FORMS[form]
    name, dsn = held.agent()
    with session(dsn) as connection:
        for step in before:
            assert "C" in tags_of(connection.cycle(wire.query(step))), step
        heard = []
        connection.send(wire.query(sql))
        reading = threading.Thread(target=lambda: heard.extend(connection.receive_until("Z")))
        reading.start()
        approval = held.waiting(name)
        assert held.command("show", approval)[1]["state"] == "pending" and reading.is_alive()
        assert held.command("approve", approval)[0] == 0
        reading.join(25)
        tags = [tag for tag in tags_of(heard) if tag not in "NS"]
        # Binary COPY has a head and a tail beside its rows; VALUES has one row of its own.
        assert tags[-2:] == ["C", "Z"] and 500 <= tags.count(data) <= 502, tags[-3:]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_reading_is_refused_whole(held, form):
    before, sql, _ = FORMS[form]
    name, dsn = held.agent()
    with session(dsn) as connection:
        for step in before:
            connection.cycle(wire.query(step))
        heard = []
        connection.send(wire.query(sql))
        reading = threading.Thread(target=lambda: heard.extend(connection.receive_until("Z")))
        reading.start()
        assert held.command("deny", held.waiting(name), "--reason", "no")[0] == 0
        reading.join(25)
        tags = tags_of(heard)
        assert not {"D", "d"} & set(tags) and tags[-2:] == ["42501", "Z"], tags
        connection.cycle(wire.query("ROLLBACK"))
        assert asked(connection, "SELECT 1") == 1


def test_rows_larger_than_what_is_kept_come_after_a_yes_only(held):
    sql = wire.query("SELECT id, email FROM ways.large ORDER BY id")
    for verdict in (("deny", "--reason", "too large"), ("approve",)):
        name, dsn = held.agent()
        reader = Reader(dsn, sql)
        approval = held.waiting(name)
        assert "D" not in reader.tags()
        assert held.command(verdict[0], approval, *verdict[1:])[0] == 0
        tags = reader.all()
        if verdict[0] == "deny":
            assert tags.endswith("EZ") and "D" not in tags
        else:
            assert tags == "TDDDCZ"
            assert [len(body) > 5_000_000 for tag, body in reader.heard if tag == "D"] == [True] * 3


def test_a_portal_executed_again_goes_on_where_it_was_held(held):
    name, dsn = held.agent()
    with session(dsn) as connection:
        connection.cycle(wire.query("BEGIN"))
        connection.cycle(wire.parse(READ) + wire.bind("p") + wire.SYNC)
        assert tags_of(connection.cycle(wire.execute("p", 60) + wire.SYNC)) == ["D"] * 60 + ["s", "Z"]
        heard = []
        connection.send(wire.execute("p", 60) + wire.SYNC)
        reading = threading.Thread(target=lambda: heard.extend(connection.receive_until("Z")))
        reading.start()
        assert held.command("approve", held.waiting(name))[0] == 0
        reading.join(25)
        assert [tag for tag in tags_of(heard) if tag not in "NS"] == ["D"] * 60 + ["s", "Z"]
        rest = connection.cycle(wire.execute("p") + wire.SYNC)
        assert [tag for tag in tags_of(rest) if tag not in "NS"] == ["D"] * 380 + ["C", "Z"]
        connection.cycle(wire.query("COMMIT"))
        assert asked(connection, "SELECT 1") == 1


def test_statement_timeout_ends_the_wait_before_the_server_does(held):
    with psycopg.connect(held.agent()[1].text(), autocommit=True) as connection:
        connection.execute("SET statement_timeout = '1s'")
        with pytest.raises(psycopg.Error) as pending:
            connection.execute(READ)
        assert pending.value.sqlstate == "YG001"
        wait_until("the session goes on", lambda: connection.execute("SELECT 1").fetchone() == (1,), seconds=5)
