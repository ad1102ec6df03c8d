"""Cancel requests by the thousand, with right and with wrong keys: the statement that was meant ends, nobody else's, and
never the next one."""

import random
import struct
import threading

import psycopg
import pytest

from lib import wire
from lib.gateway import PASS_THROUGH
from lib.run import wait_until
from test_limits import SEALED, token
from test_sessions import ENDLESS, active, running

STORM = 1000
THREADS = 8


@pytest.fixture(scope="module", params=[SEALED, PASS_THROUGH], ids=["sealed", "pass-through"])
def gateway(request, fresh_gateway, trust):
    gateway = fresh_gateway(f"cancel-{request.param_index}", policy=request.param).trust(trust.entry())
    yield gateway.start(level="info")
    gateway.stop()


@pytest.fixture
def dsn(gateway, trust):
    return gateway.dsn(token(trust))


def cancel(dsn, pid, secret):
    """Asks, and waits for the end of the connection as clients do; nothing may come before it."""
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.send(struct.pack("!iii", 12 + len(secret), wire.CANCEL_REQUEST, pid), secret)
        assert connection.socket.recv(64) == b""


class Runner(threading.Thread):
    """A session of its own that runs short statements, none of which may fail."""

    def __init__(self, dsn):
        super().__init__()
        self.connection = psycopg.connect(dsn.text(), autocommit=True)
        self.stop, self.statements, self.failures = threading.Event(), 0, []

    def run(self):
        while not self.stop.is_set():
            try:
                assert self.connection.execute("SELECT id FROM orders WHERE id = 1").fetchone() == (1,)
                self.statements += 1
            except psycopg.Error as error:
                self.failures.append(error)


def test_a_storm_ends_the_statement_that_was_meant_and_no_other(dsn, shop):
    bystander = Runner(dsn)
    bystander.start()
    with wire.Connection(dsn.host, dsn.port).login(dsn) as connection:
        pid, secret = connection.backend
        other = bystander.connection.info.backend_pid
        connection.send(wire.query(ENDLESS))
        wait_until("the statement runs", lambda: active(shop, pid))
        chance = random.Random(7)
        wrong = [(chance.choice([pid, other, chance.getrandbits(31)]), chance.randbytes(4)) for _ in range(STORM)]
        right = [(pid, secret)] * (STORM // 10)
        keys = [*wrong[: STORM // 2], *chance.sample([*wrong[STORM // 2:], *right], STORM // 2 + len(right))]
        failures = []

        def storm(mine):
            try:
                for key in mine:
                    cancel(dsn, *key)
            except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
                failures.append(error)

        threads = [threading.Thread(target=storm, args=(keys[number::THREADS],)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        (tag, body), *_ = [message for message in connection.receive_until("Z") if message[0] == "E"]
        assert wire.error_fields(body)["C"] == "57014"
        for thread in threads:
            thread.join(timeout=120)
            assert not thread.is_alive()
        assert not failures, failures
        # Everyone who asked has been told that it is settled: what comes now is hit by none of it.
        for _ in range(50):
            assert [tag for tag, _ in connection.cycle(wire.query("SELECT pg_sleep(0.01)"))] == ["T", "D", "C", "Z"]
    bystander.stop.set()
    bystander.join(timeout=30)
    assert not bystander.failures and bystander.statements > 10
    bystander.connection.close()


def test_a_cancel_that_comes_after_the_end_hits_nothing(dsn):
    with wire.Connection(dsn.host, dsn.port).login(dsn) as connection:
        for _ in range(100):
            connection.cycle(wire.query("SELECT 1"))
            cancel(dsn, *connection.backend)
            assert [tag for tag, _ in connection.cycle(wire.query("SELECT pg_sleep(0.01)"))] == ["T", "D", "C", "Z"]


def test_a_cancel_that_races_the_end_hits_that_statement_or_none(dsn):
    hit = 0
    with wire.Connection(dsn.host, dsn.port).login(dsn) as connection:
        for turn in range(100):
            # Now and then one that no cancel comes too late for.
            connection.send(wire.query(f"SELECT pg_sleep({turn % 10 / 1000 or 0.5})"))
            cancel(dsn, *connection.backend)
            tags = [tag for tag, _ in connection.receive_until("Z")]
            hit += "E" in tags
            assert [tag for tag, _ in connection.cycle(wire.query("SELECT pg_sleep(0.005)"))] == ["T", "D", "C", "Z"]
    assert hit > 0


def test_the_process_is_the_servers_and_a_key_ends_with_its_session(dsn, connect, shop):
    with wire.Connection(dsn.host, dsn.port).login(dsn) as connection:
        pid, secret = connection.backend
        messages = connection.cycle(wire.query("SELECT pg_backend_pid()"))
        assert str(pid).encode() in dict(messages)["D"]
    wait_until("the session is gone", lambda: not backend(shop, pid))
    survivor = connect(dsn)
    thread, errors = running(survivor, ENDLESS)
    wait_until("the statement runs", lambda: active(shop, survivor.info.backend_pid))
    # Neither the key of a session that is gone nor its secret with the process of another.
    for number in (pid, survivor.info.backend_pid):
        cancel(dsn, number, secret)
    assert active(shop, survivor.info.backend_pid) and not errors
    survivor.cancel_safe(timeout=10)
    thread.join(timeout=30)
    assert errors[0].sqlstate == "57014"


def backend(shop, pid):
    with psycopg.connect(shop.admin.text()) as admin:
        return admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() is not None
