"""Ways around a hold that somebody has found: each must end with nothing more at the client's socket than policy lets, and
with client and server in step."""

import re
import socket
import struct

import psycopg
import pytest

from lib import wire
from lib.yaml_text import dump
from streams import admin
from test_approvals_of_statements import Held
from test_holds import POLICY, SCHEMA

TABLES = SCHEMA + """
CREATE TABLE held.words (w text);
DROP SCHEMA IF EXISTS rest CASCADE;
CREATE SCHEMA rest;
CREATE TABLE rest.asked AS SELECT * FROM held.people;
CREATE TABLE rest.whole AS SELECT * FROM held.people;
CREATE TABLE rest.written AS SELECT * FROM held.people;
GRANT USAGE ON SCHEMA rest TO PUBLIC;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA held, rest TO shop_reader;
ANALYZE held.people;
"""

AGENTS = {"groups": ["agents"]}
ASK = {"approvers": {"groups": ["dpo"]}, "wait": "1s", "expires": "5m"}
RULES = [
    POLICY["rules"][0],
    {"id": "bulk", "who": AGENTS, "target": "shop", "relations": ["held.people"], "hold": {**ASK, "rows": 100}},
    {"id": "asked", "who": AGENTS, "target": "shop", "relations": ["rest.asked"], "hold": ASK},
    {"id": "whole", "who": AGENTS, "target": "shop", "relations": ["rest.whole"], "unbounded": "deny"},
    {"id": "written", "who": AGENTS, "target": "shop", "relations": ["rest.written"],
     "hold": {"affected": 10, "approvers": {"groups": ["dpo"]}, "mode": "async"}},
]
MASK = {"id": "mask", "who": AGENTS, "target": "shop", "mask": {"email": {"with": "redact"}}}
LIMIT = {"id": "limit", "who": AGENTS, "target": "shop", "limit": {"rows": 10000, "window": "24h"}}


@pytest.fixture(scope="module")
def tables(shop):
    admin(shop, TABLES)
    yield
    admin(shop, "DROP SCHEMA held CASCADE; DROP SCHEMA rest CASCADE")


def gateway(name, fresh_gateway, trust, rules):
    made = fresh_gateway(name, policy=dump({**POLICY, "rules": rules})).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"], "admin": ["ops"]}}
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()


@pytest.fixture(scope="module")
def held(fresh_gateway, tables, trust):
    yield from gateway("attacked", fresh_gateway, trust, RULES)


@pytest.fixture(scope="module")
def masked(fresh_gateway, tables, trust):
    yield from gateway("attacked-masked", fresh_gateway, trust, [*RULES, MASK])


@pytest.fixture(scope="module")
def limited(fresh_gateway, tables, trust):
    yield from gateway("attacked-limited", fresh_gateway, trust, [*RULES, LIMIT])


class Agent:
    """One that nobody has seen yet, and all that came to its socket."""

    def __init__(self, held):
        self.held = held
        self.name, self.dsn = held.agent()
        self.heard = b""

    def __enter__(self):
        self.connection = wire.Connection(self.dsn.host, self.dsn.port)
        self.connection.login(self.dsn)
        return self

    def __exit__(self, *_):
        self.connection.__exit__()

    def say(self, sent):
        """(tags, SQLSTATE or None, transaction status)"""
        heard = self.connection.cycle(wire.query(sent) if isinstance(sent, str) else sent)
        self.heard += b"".join(body for _, body in heard)
        errors = [wire.error_fields(body)["C"] for tag, body in heard if tag == "E"]
        return "".join(tag for tag, _ in heard if tag not in "NSA"), (errors or [None])[0], heard[-1][1]

    def approve(self, *scope):
        approval = self.held.waiting(self.name)
        assert self.held.command("approve", approval, *scope)[0] == 0
        return approval

    def names(self):
        return len(set(re.findall(rb"name \d+", self.heard)))

    def mails(self):
        return len(set(re.findall(rb"mail\d+@", self.heard)))

    def cancel(self):
        host, port = self.connection.socket.getpeername()[:2]
        with socket.create_connection((host, port)) as other:
            pid, secret = self.connection.backend
            other.sendall(struct.pack("!iii", 16, wire.CANCEL_REQUEST, pid) + secret)
            other.recv(1)


SWAP = "DEALLOCATE x; PREPARE x AS SELECT email || '' FROM held.people"


@pytest.mark.parametrize(("made", "swapped", "used"), [
    ("PREPARE x AS SELECT note || '' FROM held.notes", f"SELECT name FROM held.people; {SWAP}", "EXECUTE x"),
    ("PREPARE x AS SELECT note || '' FROM held.notes", f"SELECT name FROM held.people; {SWAP}; SELECT pg_sleep(20)", "EXECUTE x"),
    ("PREPARE x AS SELECT note || '' FROM held.notes",
     f"UPDATE held.people SET city = 'q' WHERE id > 0 RETURNING name; {SWAP}", "EXECUTE x"),
    (wire.parse("SELECT note || '' FROM held.notes", "x") + wire.SYNC, f"SELECT name FROM held.people; {SWAP}",
     wire.bind("", "x") + wire.execute() + wire.SYNC),
    ("DECLARE x CURSOR WITH HOLD FOR SELECT note || '' FROM held.notes",
     "SELECT name FROM held.people; CLOSE x; DECLARE x CURSOR WITH HOLD FOR SELECT email || '' FROM held.people", "FETCH ALL FROM x"),
], ids=["prepare", "prepare and sleep", "behind a write", "protocol", "cursor"])
def test_names_do_not_change_their_meaning_behind_a_held_statement(masked, made, swapped, used):
    with Agent(masked) as agent:
        assert agent.say(made)[1] is None
        assert agent.say(swapped)[1] is not None
        agent.say(used)
        assert agent.mails() == 0 and agent.names() <= 100


def test_a_commit_behind_a_held_statement_does_not_commit(held, shop):
    with Agent(held) as agent:
        agent.say("BEGIN")
        agent.say("INSERT INTO held.words VALUES ('refused')")
        assert agent.say("SELECT name FROM held.people; COMMIT")[1:] != ("YG001", b"I")
        agent.say("ROLLBACK")
    with psycopg.connect(shop.admin.text()) as truth:
        assert truth.execute("SELECT count(*) FROM held.words WHERE w = 'refused'").fetchone() == (0,)


PACKED = "SELECT string_agg(name, ',')::int FROM held.people"


@pytest.mark.parametrize("sql", [
    PACKED, f"EXPLAIN ANALYZE {PACKED}", f"SELECT 1 WHERE ({PACKED}) = 1", f"INSERT INTO held.words SELECT 'x' WHERE ({PACKED}) = 1",
    f"BEGIN; DECLARE c CURSOR FOR {PACKED}; MOVE 1 FROM c", "SELECT array_agg(name)::text::int FROM held.people",
])
def test_errors_carry_no_rows_of_what_is_counted(held, sql):
    with Agent(held) as agent:
        assert agent.say(sql)[1] is not None
        assert agent.names() == 0


@pytest.mark.parametrize("write", [
    "UPDATE held.people SET name = (SELECT string_agg(name, ',') FROM held.people) WHERE id = 1",
    "INSERT INTO held.people SELECT 100001, string_agg(name, ','), '', '' FROM held.people",
])
def test_rows_are_not_packed_into_a_row_of_their_own_relation(held, shop, write):
    with Agent(held) as agent:
        agent.say(write)
        agent.say("SELECT name FROM held.people WHERE id IN (1, 100001)")
        assert agent.names() <= 100
    admin(shop, "DELETE FROM held.people WHERE id = 100001; UPDATE held.people SET name = 'name 1' WHERE id = 1")


@pytest.mark.parametrize("sql", [
    "SELECT g FROM generate_series(1, 1000) g WHERE g IN (SELECT id FROM held.people)",
    "SELECT g, c FROM generate_series(1, 500) g, generate_series(32, 126) c "
    "WHERE EXISTS (SELECT 1 FROM held.people x WHERE x.id = g AND ascii(substr(x.name, 6, 1)) = c)",
])
def test_rows_that_choose_rows_count(held, sql):
    with Agent(held) as agent:
        assert agent.say(sql)[0].count("D") <= 100


def test_what_a_cursor_gives_is_approved_while_it_waits_and_never_later(held):
    """Where it stands, and what it was bound with, no text says."""
    prepare = wire.parse("SELECT name FROM held.people WHERE id > $1 AND id <= $2", "s", (23, 23)) + wire.SYNC
    with Agent(held) as agent:
        agent.say(prepare)
        for low, high in (("0", "101"), ("200", "480")):
            agent.say("BEGIN")
            agent.say(wire.bind("c", "s", (low, high)) + wire.SYNC)
            assert agent.say("FETCH ALL FROM c")[1] == "42501"
            status, listed = held.command("list", "--principal", agent.name)
            assert status == 0 and not listed["approvals"], "nothing is left to approve"
            agent.say("ROLLBACK")
        assert agent.names() == 0


def test_a_revoked_approval_ends_what_rests_on_it(held):
    start = wire.bind("p", "s") + wire.execute("p", 101) + wire.SYNC
    with Agent(held) as agent:
        agent.say("BEGIN")
        agent.say(wire.parse("SELECT name FROM held.people", "s") + wire.SYNC)
        assert agent.say(start)[1] == "YG001"
        approval = agent.approve()
        agent.say("ROLLBACK")
        agent.say("BEGIN")
        assert agent.say(start)[0].count("D") == 101
        assert held.command("revoke", approval, "--reason", "enough")[0] == 0
        # Decided in the same store that the session asks.
        assert agent.say(wire.execute("p", 50) + wire.SYNC)[1] is not None
        assert agent.names() == 101


@pytest.mark.parametrize("sql", ["SELECT name FROM rest.asked", "SELECT string_agg(name, ',') FROM rest.asked"])
def test_a_ceiling_holds_where_the_rule_counts_nothing(held, sql):
    with Agent(held) as agent:
        assert agent.say(sql)[1] == "YG001"
        agent.approve("--rows", "120")
        assert agent.say(sql)[1] == "53400"
        assert agent.names() <= 120


def test_a_stream_is_stopped_where_the_rule_counts_nothing(held):
    sql = "SELECT p.name FROM rest.asked p, generate_series(1, 20000) g"
    with Agent(held) as agent:
        assert agent.say(sql)[1] == "YG001"
        approval = agent.approve()
        agent.connection.send(wire.query(sql))
        assert agent.connection.receive()[0] == "T"
        assert held.command("revoke", approval, "--reason", "enough")[0] == 0
        assert "C" not in {tag for tag, _ in agent.connection.receive_until("Z")}


@pytest.mark.parametrize("sql", [
    "SELECT name FROM rest.whole LIMIT 1000000000",
    "BEGIN; DECLARE c CURSOR FOR SELECT name FROM rest.whole; FETCH ALL FROM c",
])
def test_unbounded_is_not_got_around(held, sql):
    with Agent(held) as agent:
        assert agent.say(sql)[1] == "42501"
        assert agent.names() == 0


def test_a_write_that_returns_row_by_row_is_judged_whole(held, shop):
    sql = "UPDATE rest.written SET city = 'past' WHERE id <= 50 RETURNING id"
    with Agent(held) as agent:
        assert agent.say(wire.parse(sql) + wire.bind() + wire.execute("", 5) + wire.SYNC)[1] is not None
    with psycopg.connect(shop.admin.text()) as truth:
        assert truth.execute("SELECT count(*) FROM rest.written WHERE city = 'past'").fetchone() == (0,)


def test_affected_rows_count_over_a_query(held, shop):
    part = "UPDATE rest.written SET city = 'parts' WHERE id > {} AND id <= {}"
    with Agent(held) as agent:
        assert agent.say("; ".join(part.format(start, start + 10) for start in range(0, 100, 10)))[1] is not None
    with psycopg.connect(shop.admin.text()) as truth:
        assert truth.execute("SELECT count(*) FROM rest.written WHERE city = 'parts'").fetchone() == (0,)


def test_the_count_goes_on_over_the_statements_of_a_query(limited):
    part = "SELECT name FROM held.people WHERE id > {} AND id <= {}"
    with Agent(limited) as agent:
        assert agent.say("; ".join(part.format(start, start + 90) for start in range(0, 360, 90)))[1] == "YG001"
        assert agent.names() <= 100


def test_statistics_carry_no_rows_of_what_is_counted(held):
    with Agent(held) as agent:
        agent.say("SELECT attname, histogram_bounds, most_common_vals FROM pg_stats WHERE tablename = 'people'")
        assert agent.names() <= 100 and agent.mails() <= 100


def test_names_are_not_swapped_behind_a_held_statement(masked):
    with Agent(masked) as agent:
        agent.say("PREPARE x AS SELECT note || '' FROM held.notes")
        assert agent.say(f"SELECT name FROM held.people; {SWAP}")[1] == "58030"
        agent.say("EXECUTE x")
        assert agent.mails() == 0
