"""Many sessions at once, each its own; cancel; a shutdown that lets nobody hang."""

import signal
import threading
import time

import psycopg
import pytest
from psycopg.rows import dict_row

from lib import wire
from lib.run import wait_until
from spine import SEAT_MASKS, SEATS, assert_masked

ROUNDS = 12
# Runs for minutes unless it is cancelled, and touches nothing sealed.
ENDLESS = "SELECT a.id FROM orders a CROSS JOIN orders b CROSS JOIN orders c LIMIT 1 OFFSET 3000000000"
QUERIES = [
    ("SELECT * FROM customers WHERE id <= 60", None),
    ("SELECT id, phone, ssn, email FROM customers WHERE id <= 60", None),
    ("SELECT * FROM customers WHERE id <= %s", (60,)),
]


def test_ten_principals_at_once_see_each_their_own_masks(gateway, provider, truth):
    barrier = threading.Barrier(SEATS)
    failures = []

    def sit(seat):
        try:
            masks = SEAT_MASKS[seat]
            with psycopg.connect(
                gateway.dsn(provider.token(f"seat-{seat}")).text(), autocommit=True, row_factory=dict_row,
            ) as connection:
                barrier.wait(timeout=60)
                for turn in range(ROUNDS):
                    sql, values = QUERIES[turn % len(QUERIES)]
                    cursor = connection.cursor(binary=turn % 2 == 1)
                    rows = cursor.execute(sql, values, prepare=turn % 3 == 2).fetchall()
                    assert len(rows) == 60
                    for row in rows:
                        original = truth["customers"][row["id"]]
                        for column, value in row.items():
                            if column in masks:
                                assert_masked(value, original[column], masks[column])
                            else:
                                assert value == original[column], column
        except BaseException as error:  # noqa: BLE001 - a thread's failure must reach the test
            failures.append((seat, error))
            barrier.abort()

    threads = [threading.Thread(target=sit, args=(seat,)) for seat in range(SEATS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not failures, failures


def running(connection, sql):
    """Starts `sql` on another thread; returns the thread and the list its error will land in."""
    errors = []

    def work():
        try:
            connection.execute(sql)
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, errors


def active(shop, pid):
    with psycopg.connect(shop.admin.text()) as admin:
        found = admin.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
    return found is not None and found[0] == "active"


def runs_and_is_cancelled(connection, shop):
    """A statement without an end, which the client's cancel ends."""
    pid = connection.info.backend_pid
    thread, errors = running(connection, ENDLESS)
    wait_until("the statement runs on the server", lambda: active(shop, pid))
    connection.cancel_safe(timeout=10)
    thread.join(timeout=30)
    assert not thread.is_alive() and errors[0].sqlstate == "57014"


def test_cancel_ends_the_statement_and_not_the_session(connect, agent, shop):
    connection = connect(agent)
    runs_and_is_cancelled(connection, shop)
    assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_cancel_with_a_wrong_secret_does_nothing(plain, trust, shop, connect):
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    connection = connect(dsn)
    pid = connection.info.backend_pid
    thread, errors = running(connection, ENDLESS)
    wait_until("the statement runs on the server", lambda: active(shop, pid))
    for secret in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        with wire.Connection(dsn.host, dsn.port) as other:
            other.send((16).to_bytes(4, "big"), wire.CANCEL_REQUEST.to_bytes(4, "big"), pid.to_bytes(4, "big"), secret)
            with pytest.raises(wire.Closed):
                other.receive()
    assert active(shop, pid) and not errors
    connection.cancel_safe(timeout=10)
    thread.join(timeout=30)
    assert errors[0].sqlstate == "57014"


def test_a_client_that_vanishes_leaves_no_backend(plain, trust, shop):
    dsn = plain.dsn(trust.token("agent-7", ["agents"]))
    connection = wire.Connection(dsn.host, dsn.port).login(dsn)
    pid = connection.backend[0]
    connection.socket.close()

    def gone():
        with psycopg.connect(shop.admin.text()) as admin:
            return admin.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() == (0,)

    wait_until("the backend of a vanished client is gone", gone)


def test_a_silent_client_does_not_hold_a_slot_for_ever(plain):
    """The deadline before authentication: connect and say nothing."""
    with wire.Connection("127.0.0.1", plain.port) as connection:
        connection.socket.settimeout(90)
        started = time.monotonic()
        try:
            connection.receive()
            with pytest.raises(wire.Closed):
                connection.receive()
        except (wire.Closed, ConnectionError):
            pass
        assert time.monotonic() - started < 80


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_shutdown_is_graceful(fresh_gateway, trust, number):
    gateway = fresh_gateway(f"shutdown-{number}").trust(trust.entry()).start()
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as connection:
        connection.execute("SELECT 1")
        gateway.process.send_signal(number)
        assert gateway.process.wait(30) == 0
        with pytest.raises(psycopg.Error) as caught:
            connection.execute("SELECT 1")
        assert caught.value.sqlstate in ("57P01", None)
    gateway.run.forget(gateway.process)
