"""Clients that leave, or have nothing more to say; and what the server says while a client logs in."""

import socket
from datetime import datetime

import psycopg
import pytest
from lib import wire
from lib.hostile import reset
from lib.run import wait_until
from streams import admin, serving, session, tags_of, writers_policy
from test_record import lines, of_type
from witnesses import sessions_of

# It is five, for who left first; the rest is for a busy machine.
WAITED_SECONDS_MIN = 2


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    rules = [
        {"id": "preparers", "who": {"groups": ["preparers"]}, "target": "shop", "allow": ["read", "admin"]},
        {"id": "mask-preparers", "who": {"groups": ["preparers"]}, "target": "shop", "mask": {"ssn": {"with": "redact"}}},
    ]
    yield from serving(fresh_gateway, shop, trust, "departures", writers_policy(rules))


@pytest.fixture
def dsn(gateway, trust):
    return gateway.dsn(trust.token("leaver", ["writers"]))


def rest(connection):
    """Everything up to the end of the connection."""
    seen = []
    try:
        while True:
            seen.append(connection.receive())
    except wire.Closed:
        return seen


ROWS = ["T", "D", "C", "Z"]
# What is sent, and what PostgreSQL answers before it closes.
SCRIPTS = {
    "queries": ([wire.query("SELECT 1"), wire.query("SELECT count(*) FROM generate_series(1, 2000000)"), wire.query("SELECT 2")], ROWS * 3),
    "a batch": ([wire.parse("SELECT 1") + wire.bind() + wire.execute() + wire.SYNC], ["1", "2", "D", "C", "Z"]),
    "a batch without its end": ([wire.parse("INSERT INTO tags VALUES (77, 'x')") + wire.bind() + wire.execute()], []),
    "what does not resolve": ([wire.query("SELECT nothing FROM nowhere"), wire.query("SELECT 3")], ["42P01", "Z", *ROWS]),
    "half a message": ([wire.query("SELECT 1"), wire.query("SELECT 2")[:7]], ROWS),
    "a transaction": ([wire.query("BEGIN"), wire.query("INSERT INTO tags VALUES (77, 'x')")], ["C", "Z"] * 2),
    "nothing": ([], []),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_client_that_ends_its_side_gets_what_it_is_owed(dsn, shop, script):
    sent, owed = SCRIPTS[script]
    # Without TLS, which Python cannot end on one side alone.
    with session(dsn) as connection:
        connection.send(*sent)
        connection.socket.shutdown(socket.SHUT_WR)
        assert tags_of(rest(connection)) == owed
    assert admin(shop, "SELECT count(*) FROM tags WHERE id = 77") == [(0,)]


def backend_gone(shop, pid):
    return admin(shop, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)) == [(0,)]


def waits_for_lock(shop, pid):
    return admin(shop, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", (pid,)) == [("Lock",)]


def test_a_client_that_leaves_during_an_exchange_of_the_gateways_own_is_noticed(gateway, dsn, shop):
    """The gateway's question about a text it cannot resolve waits at the server for a lock on its table. Who is gone is noticed
    at once, who may only have ended its side is waited for: the record tells them apart."""
    closed, gone = session(dsn), session(dsn)
    addresses = ["{}:{}".format(*connection.socket.getsockname()) for connection in (gone, closed)]
    with psycopg.connect(shop.admin.text()) as owner:
        owner.execute("LOCK TABLE tags IN ACCESS EXCLUSIVE MODE")
        for connection in (closed, gone):
            pid = connection.backend[0]
            connection.send(wire.query("SELECT no_such_column FROM tags"))
            wait_until("the gateway's question waits", lambda pid=pid: waits_for_lock(shop, pid))
        closed.socket.close()
        reset(gone.socket)
        wait_until("the backends are gone", lambda: all(backend_gone(shop, one.backend[0]) for one in (gone, closed)))
        owner.rollback()
    sessions = sessions_of(lines(gateway))
    first, last = (sessions[address] for address in addresses)
    ended = lambda: {line["session"]: datetime.fromisoformat(line["time"]) for line in of_type(lines(gateway), "session.end")}
    wait_until("their ends are on record", lambda: ended().keys() >= {first, last})
    assert (ended()[last] - ended()[first]).total_seconds() > WAITED_SECONDS_MIN


def test_what_the_server_says_during_login_comes_behind_it(dsn, shop, gateway):
    admin(shop, "ALTER ROLE shop_reader SET client_min_messages = 'debug5'")
    try:
        with wire.Connection(dsn.host, dsn.port) as connection:
            connection.startup(user=dsn.user, database=dsn.dbname)
            assert connection.receive()[0] == "R"
            connection.send(wire.message("p", wire.cstring(dsn.password)))
            greeting = [tag for tag, _ in connection.receive_until("Z")]
            assert greeting[0] == "R" and set(greeting[1:-2]) == {"S"} and greeting[-2:] == ["K", "Z"]
            connection.send(wire.query("SELECT 1"))
            said = [tag for tag, _ in connection.receive_until("Z")]
            assert "N" in said and [tag for tag in said if tag != "N"] == ["T", "D", "C", "Z"]
            assert said.index("N") < said.index("T")
    finally:
        admin(shop, "ALTER ROLE shop_reader RESET client_min_messages")


FAILED = [
    [wire.query("PREPARE TRANSACTION 'x'")],
    [wire.parse("PREPARE TRANSACTION 'x'") + wire.bind() + wire.execute() + wire.SYNC],
    [wire.parse("") + wire.SYNC, wire.bind() + wire.SYNC],
    [wire.parse("", "e") + wire.describe("S", "e") + wire.SYNC, wire.bind("", "e") + wire.execute() + wire.SYNC],
    [wire.bind("", "before") + wire.execute() + wire.SYNC],
    [wire.execute("portal") + wire.SYNC],
    [wire.query("COMMIT PREPARED 'x'")],
    [wire.query("")],
]


@pytest.mark.parametrize("number", range(len(FAILED)))
def test_a_failed_block_answers_as_the_server_does(gateway, shop, number, trust):
    def play(who):
        with session(who) as connection:
            script = [wire.parse("", "before") + wire.SYNC, wire.query("BEGIN"),
                      wire.bind("portal", "before") + wire.SYNC, wire.query("SELECT 1/0"),
                      *FAILED[number], wire.query("SELECT 1"), wire.query("ROLLBACK"), wire.query("SELECT 1")]
            return [(tags_of(cycle), cycle[-1][1]) for cycle in map(connection.cycle, script)]

    assert play(gateway.dsn(trust.token("preparer", ["preparers"]))) == play(shop.reader)
