"""Limits: who has logged in is counted apart from who has not, every refusal says which limit and what to do, and what
was counted comes back however a connection ends."""

import itertools
import socket
import struct
import subprocess
import threading

import psycopg
import pytest

from lib import wire
from lib.dsn import psql, psql_command
from lib.gateway import PASS_THROUGH, Gateway
from lib.run import wait_until
from spine import LABELS
from lib.yaml_text import dump
from test_sessions import ENDLESS, active, running, runs_and_is_cancelled

NUMBERS = itertools.count()
SEALED = dump({
    "version": 1,
    "labels": {"shop": LABELS},
    "rules": [
        {"id": "read", "allow": ["read"]},
        {"id": "seal", "mask": {"ssn": {"with": "redact"}}, "target": "shop"},
    ],
})


@pytest.fixture
def limited(run, program, server, shop, trust, authority):
    """Starts gateways with small limits, ended with the test."""
    started = []

    def make(policy=SEALED, tls=False, **limits):
        gateway = Gateway(run, f"limits-{next(NUMBERS)}").policy(policy)
        gateway.trust(trust.entry()).target(server, "shop", shop.logins())
        gateway.config["listen"]["postgres"]["limits"] = limits
        if tls:
            gateway.listen_tls(authority)
        started.append(gateway.start(level="debug"))
        return gateway

    yield make
    for gateway in started:
        gateway.stop()


def token(trust, sub="agent-7"):
    return trust.token(sub, ["agents"])


def said(dsn, **environment):
    """What psql says of a login that fails."""
    done = subprocess.run(
        [psql_command(), "-X", "-c", "SELECT 1"], env={**dsn.environment(), **environment}, capture_output=True,
        text=True, check=False, timeout=60,
    )
    assert done.returncode == 2, done
    return done.stderr


LIMITS = {
    "connections": ("the gateway has 2 sessions, the most allowed", lambda number: f"agent-{number}"),
    "per_source": ("your address has 2 sessions, the most allowed", lambda number: f"agent-{number}"),
    "per_principal": ("you have 2 sessions, the most allowed", lambda _: "agent-7"),
}


@pytest.mark.parametrize("mode", ["require", "disable"])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_session_over_a_limit_is_told_which(limited, trust, connect, limit, mode):
    words, subject = LIMITS[limit]
    gateway = limited(tls=mode == "require", **{limit: 2})
    dsns = [gateway.dsn(token(trust, subject(number))).with_(sslmode=mode, sslrootcert=None) for number in range(3)]
    first, second = (connect(dsn) for dsn in dsns[:2])
    told = said(dsns[2])
    assert words in told and "HINT" in told and limit in told
    assert first.execute("SELECT 1").fetchone() == second.execute("SELECT 1").fetchone() == (1,)
    second.close()
    wait_until("the place is free", lambda: psql(dsns[2], "SELECT 1", check=False).returncode == 0)
    assert first.execute("SELECT 1").fetchone() == (1,)


def test_another_principal_is_not_held_to_the_first_ones_limit(limited, trust, connect):
    gateway = limited(per_principal=1)
    connect(gateway.dsn(token(trust)))
    assert "you have 1 sessions" in said(gateway.dsn(token(trust)))
    connect(gateway.dsn(token(trust, "somebody-else"))).execute("SELECT 1")


def test_who_fails_too_often_waits(limited, trust):
    gateway = limited(failed_logins="3/min")
    late = gateway.dsn(trust.token("agent-7", ["agents"], ttl="-1h"))
    for _ in range(3):
        assert "expired" in said(late)
    assert "too many failed logins" in said(gateway.dsn(token(trust)))


def stalled(gateway, count, *sent, source="127.0.0.1"):
    """Connections that have said `sent` and then nothing."""
    opened = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30, source_address=(source, 0))
        connection.sendall(b"".join(sent))
        opened.append(connection)
    return opened


SSL_REQUEST = struct.pack("!ii", 8, wire.SSL_REQUEST)


@pytest.mark.parametrize("sent", [b"", SSL_REQUEST, b"\0\0\0\x20\0\x03\0\0user\0"], ids=["silent", "tls", "startup"])
def test_connections_that_stall_before_login_take_nobodys_place(limited, trust, connect, sent):
    gateway = limited(tls=True, connections=2, unauthenticated=8)
    dsn = gateway.dsn(token(trust))
    before = connect(dsn)
    held = []
    for _ in range(20):
        held += stalled(gateway, 10, sent, source="127.0.0.2")
        psql(dsn, "SELECT 1")
    # Who shares the address waits until the others count as stalled.
    held += stalled(gateway, 10, sent)
    wait_until("a login gets through", lambda: psql(dsn, "SELECT 1", check=False).returncode == 0)
    assert before.execute("SELECT 1").fetchone() == (1,)
    for connection in held:
        connection.close()


def test_a_full_lobby_is_said_and_cancels_are_heard_all_the_same(limited, trust, connect, shop):
    gateway = limited(connections=1, unauthenticated=2)
    dsn = gateway.dsn(token(trust))
    connection = connect(dsn)
    pid = connection.info.backend_pid
    thread, errors = running(connection, ENDLESS)
    wait_until("the statement runs on the server", lambda: active(shop, pid))
    held = []

    def is_full():
        # Who stalls makes way after a while, perhaps before anybody asks.
        held.extend(stalled(gateway, 1))
        return "too many connections are logging in" in said(dsn)

    wait_until("a full lobby is said", is_full)
    connection.cancel_safe(timeout=10)
    thread.join(timeout=30)
    assert not thread.is_alive() and errors[0].sqlstate == "57014"
    # With a place to ask from, the limit is that of sessions.
    for stalling in held:
        stalling.close()
    wait_until("the lobby is free", lambda: "the gateway has 1 sessions" in said(dsn))


def test_a_cancel_over_tls_is_heard_with_every_session_taken(limited, trust, connect, shop):
    gateway = limited(tls=True, connections=1)
    runs_and_is_cancelled(connect(gateway.dsn(token(trust))), shop)


@pytest.mark.parametrize("policy", [SEALED, PASS_THROUGH], ids=["sealed", "pass-through"])
def test_what_was_counted_comes_back_however_a_connection_ends(limited, trust, policy):
    gateway = limited(policy, connections=4, per_principal=4, per_source=4, failed_logins="1000/min")
    dsn = gateway.dsn(token(trust))
    late = gateway.dsn(trust.token("agent-7", ["agents"], ttl="-1h"))

    def vanish(stage):
        connection = wire.Connection(dsn.host, dsn.port)
        if stage >= 1:
            connection.startup(user="agent", database="shop")
        if stage >= 2:
            connection.receive()
            connection.send(wire.message("p", wire.cstring((late if stage == 2 else dsn).password)))
        if stage >= 4:
            connection.receive_until("Z")
        if stage >= 5:
            connection.send(wire.query(ENDLESS))
        # A reset, not a farewell.
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.close()

    for turn in range(10):
        for stage in range(6):
            try:
                vanish(stage)
            except (wire.Closed, OSError, wire.LoginRefused):
                pass
    opened = []

    def all_places():
        while len(opened) < 4:
            try:
                opened.append(psycopg.connect(dsn.text(), autocommit=True))
            except psycopg.OperationalError:
                return False
        return True

    wait_until("every place is free again", all_places)
    for connection in opened:
        connection.close()


def test_logins_all_at_once_all_get_in(limited, trust):
    gateway = limited(tls=True)
    dsn = gateway.dsn(token(trust))
    answers, barrier = [], threading.Barrier(40)

    def enter():
        barrier.wait(timeout=30)
        with psycopg.connect(dsn.text()) as connection:
            answers.append(connection.execute("SELECT 1").fetchone()[0])

    threads = [threading.Thread(target=enter) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert answers == [1] * 40
