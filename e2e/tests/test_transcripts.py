"""Under the pass-through policy the gateway adds nothing and takes nothing: the server's bytes, one by one."""

import struct

import pytest

from lib import wire

BIND_NOTHING = wire.bind()
# Each script is a list of cycles; a cycle ends with ReadyForQuery.
SCRIPTS = {
    "simple": [
        wire.query("SELECT * FROM customers ORDER BY id"),
        wire.query("SELECT 1; SELECT 2; SELECT 'three'"),
        wire.query(""),
        wire.query("-- only a comment"),
        wire.query("SELECT 1; SELECT 1/0; SELECT 2"),
        wire.query("SELEC"),
        wire.query("VALUES (1, NULL, '')"),
        wire.query("SELECT"),
    ],
    "transactions": [
        wire.query("BEGIN"), wire.query("SELECT 1/0"), wire.query("SELECT 1"), wire.query("ROLLBACK"),
        wire.query("BEGIN; SAVEPOINT a; SELECT 1"), wire.query("SELECT nope"), wire.query("ROLLBACK TO a"),
        wire.query("SELECT 2"), wire.query("COMMIT"), wire.query("COMMIT"),
    ],
    "extended": [
        wire.parse("SELECT $1::int + 1", "s", [23]) + wire.describe("S", "s") + wire.SYNC,
        wire.bind(statement="s", values=["41"]) + wire.describe() + wire.execute() + wire.SYNC,
        wire.bind(statement="s", values=["x"]) + wire.describe() + wire.execute() + wire.SYNC,
        wire.bind(statement="s", values=["41"], result_formats=[1]) + wire.execute() + wire.SYNC,
        wire.parse("SELECT * FROM orders ORDER BY id") + BIND_NOTHING + wire.describe() + wire.execute(rows=3) + wire.SYNC,
        wire.query("BEGIN"),
        wire.parse("SELECT id FROM orders ORDER BY id") + wire.bind("p") + wire.execute("p", 2) + wire.SYNC,
        wire.execute("p", 2) + wire.execute("p", 1) + wire.SYNC,
        wire.close("P", "p") + wire.close("S", "s") + wire.close("S", "never-was") + wire.SYNC,
        wire.query("COMMIT"),
        wire.bind(statement="s") + wire.SYNC,
        wire.parse("") + BIND_NOTHING + wire.execute() + wire.SYNC,
        wire.parse("SELECT 1; SELECT 2") + wire.SYNC,
    ],
    "pipelines": [
        b"".join(wire.parse(f"SELECT {n}") + BIND_NOTHING + wire.execute() for n in range(20)) + wire.SYNC,
        wire.parse("SELECT 1/0") + BIND_NOTHING + wire.execute() + wire.parse("SELECT 1") + BIND_NOTHING + wire.SYNC,
    ],
    "settings and notices": [
        wire.query("SET TimeZone = 'Asia/Tokyo'"), wire.query("SHOW TimeZone"), wire.query("SET TimeZone = 'Nowhere'"),
        wire.query("SET application_name = 'x'"), wire.query("DROP TABLE IF EXISTS never_was"), wire.query("RESET ALL"),
        wire.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$"),
    ],
    "wide": [
        wire.query("SELECT repeat('x', 1000000)"),
        wire.query("SELECT * FROM generate_series(1, 20000)"),
        wire.query("SELECT " + ", ".join(f"{n} AS c{n}" for n in range(1000))),
    ],
}


# What the gateway knows without asking it says itself, in the server's words but without the place in the server's source.
OWN_ANSWERS = {"25P02", "26000", "34000"}


def transcript(dsn, ca, script):
    with wire.Connection(dsn.host, dsn.port, ca=ca) as connection:
        connection.login(dsn)
        return [[comparable(*message) for message in connection.cycle(cycle)] for cycle in script]


def comparable(tag, body):
    fields = wire.error_fields(body) if tag == "E" else {}
    if fields.get("C") in OWN_ANSWERS:
        return tag, {name: value for name, value in fields.items() if name not in "FLR"}
    return tag, body


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_transcript_is_the_servers(through, trust, server, name):
    direct = transcript(server.admin("shop"), server.ca, SCRIPTS[name])
    passed = transcript(through.dsn(trust.token("agent-7", ["agents"])), None, SCRIPTS[name])
    for number, (expected, seen) in enumerate(zip(direct, passed, strict=True)):
        assert seen == expected, f"cycle {number} of {name}"


def test_what_a_client_learns_at_login_is_the_servers(through, trust, server):
    dsn = through.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection("localhost", server.port, ca=server.ca) as direct, wire.Connection(dsn.host, dsn.port) as passed:
        direct.login(server.admin("shop"))
        passed.login(dsn)
        assert passed.parameters == direct.parameters
        # pg_backend_pid() and BackendKeyData agree, as tools that look for themselves in pg_stat_activity need.
        row = dict(passed.cycle(wire.query("SELECT pg_backend_pid()")))["D"]
        assert row == struct.pack("!hi", 1, len(str(passed.backend[0]))) + str(passed.backend[0]).encode()
