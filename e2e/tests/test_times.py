"""Time-outs, keepalives and the end: nobody stays longer than configured, and nothing that has stopped answering keeps
the gateway from ending."""

import os
import signal
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest

from lib import wire
from lib.dsn import psql
from lib.gateway import PASS_THROUGH
from lib.run import wait_until
from test_limits import SEALED, token
from test_sessions import ENDLESS, active, running

BIG = "SELECT repeat('x', 1000) FROM generate_series(1, 2000000)"
POLICIES = pytest.mark.parametrize("policy", [SEALED, PASS_THROUGH], ids=["sealed", "pass-through"])


@pytest.fixture
def timed(fresh_gateway, trust):
    """Starts gateways with settings of their own, ended with the test."""
    started = []

    def make(policy=SEALED, listen=(), **target):
        gateway = fresh_gateway(f"timed-{len(started)}-{time.monotonic_ns()}", policy=policy).trust(trust.entry())
        gateway.config["listen"]["postgres"].update(dict(listen))
        gateway.config["targets"]["shop"]["postgres"].update(target)
        started.append(gateway.start(level="debug"))
        return gateway

    yield make
    for gateway in started:
        if gateway.process.poll() is None:
            gateway.stop()
        else:
            gateway.run.forget(gateway.process)


KEEPALIVE_TIMER = 2
IDLE_SECONDS = 6
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def keepalive_seconds(local, remote):
    """Seconds to the next keepalive probe of the connection between two local ports, `None` without one."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, _, _, timer, *_ = line.split()
        if (int(here.split(":")[1], 16), int(there.split(":")[1], 16)) == (local, remote):
            kind, ticks = (int(part, 16) for part in timer.split(":"))
            return ticks / TICKS_PER_SECOND if kind == KEEPALIVE_TIMER else None
    # The kernel's list may skip a line while others come and go.
    return None


@POLICIES
def test_both_sides_are_probed_as_configured(timed, trust, connect, server, policy):
    gateway = timed(policy, {"keepalive": {"idle": "7200s"}}, keepalive={"idle": "30s"})
    connection = connect(gateway.dsn(token(trust)))
    pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    (client,) = (socket.socket(fileno=os.dup(connection.fileno())),)
    with client:
        port = client.getsockname()[1]
    upstream = int(psql(server.admin(), f"SELECT client_port FROM pg_stat_activity WHERE pid = {pid}").stdout)
    # The timer of data in flight may stand there for a moment.
    wait_until("the client is probed late", lambda: 6000 < (keepalive_seconds(gateway.port, port) or 0) <= 7200)
    wait_until("the server is probed soon", lambda: 0 < (keepalive_seconds(upstream, server.port) or 0) <= 30)


@POLICIES
def test_probes_are_on_unless_configured_otherwise(timed, trust, connect, policy):
    gateway = timed(policy)
    connection = connect(gateway.dsn(token(trust)))
    with socket.socket(fileno=os.dup(connection.fileno())) as client:
        port = client.getsockname()[1]
    wait_until("the client is probed", lambda: 0 < (keepalive_seconds(gateway.port, port) or 0) <= 60)


@POLICIES
def test_who_says_nothing_between_transactions_is_sent_away(timed, trust, connect, policy):
    gateway = timed(policy, {"idle_timeout": f"{IDLE_SECONDS}s"})
    dsn = gateway.dsn(token(trust))
    busy = connect(dsn)
    open_transaction = connect(dsn, autocommit=False)
    open_transaction.execute("SELECT 1")
    with wire.Connection(dsn.host, dsn.port) as idle:
        idle.login(dsn)
        started = time.monotonic()
        thread, errors = running(busy, f"SELECT pg_sleep({2 * IDLE_SECONDS})")
        tag, body = idle.receive()
        fields = wire.error_fields(body)
        assert tag == "E" and fields["C"] == "57P05" and "idle" in fields["M"] and fields["H"]
        assert IDLE_SECONDS / 2 < time.monotonic() - started < 3 * IDLE_SECONDS
        with pytest.raises(wire.Closed):
            idle.receive()
        thread.join(timeout=30)
        assert not errors
    # An open transaction is the server's own affair (idle_in_transaction_session_timeout).
    assert open_transaction.execute("SELECT 1").fetchone() == (1,)


def test_who_keeps_talking_stays(timed, trust, connect):
    gateway = timed(listen={"idle_timeout": f"{IDLE_SECONDS}s"})
    connection = connect(gateway.dsn(token(trust)))
    deadline = time.monotonic() + 2 * IDLE_SECONDS
    while time.monotonic() < deadline:
        connection.execute("SELECT pg_sleep(0.2)")


@POLICIES
def test_the_targets_statement_timeout_is_where_sessions_start(timed, trust, connect, policy):
    gateway = timed(policy, statement_timeout="1500ms")
    dsn = gateway.dsn(token(trust)).text()
    with psycopg.connect(dsn, autocommit=True) as connection:
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
        with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
            connection.execute(ENDLESS)
        connection.execute("SET statement_timeout = '5s'")
        connection.execute("RESET statement_timeout")
        assert connection.execute("SHOW statement_timeout").fetchone() == ("1500ms",)
    for asked, given in {"1s": "1s", "60s": "1500ms", "0": "1500ms"}.items():
        with psycopg.connect(dsn, options=f"-c statement_timeout={asked}") as connection:
            assert connection.execute("SHOW statement_timeout").fetchone() == (given,)


@POLICIES
def test_the_servers_own_timeouts_pass(timed, trust, connect, policy):
    connection = connect(timed(policy).dsn(token(trust)), autocommit=False)
    connection.execute("SET idle_in_transaction_session_timeout = '500ms'")

    def ended():
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            return error.sqlstate in ("25P03", "57P01", None)
        return time.sleep(0.7)

    wait_until("the server ends the session", ended)


def test_a_server_that_does_not_answer_is_given_up_in_time(timed, trust):
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        gateway = timed(connect_timeout="1s")
        gateway.stop()
        gateway.config["targets"]["silent"] = {"postgres": {
            **gateway.config["targets"]["shop"]["postgres"], "port": silent.getsockname()[1],
        }}
        gateway.start(level="debug")
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match='target "silent" cannot be reached'):
            psycopg.connect(gateway.dsn(token(trust), "silent").text())
        assert time.monotonic() - started < 8


def ends(gateway, seconds, status=0):
    started = time.monotonic()
    assert gateway.process.wait(seconds) == status
    return time.monotonic() - started


@POLICIES
def test_an_open_transaction_may_finish_while_the_gateway_drains(timed, trust, connect, policy):
    gateway = timed(policy, {"drain": "30s"})
    dsn = gateway.dsn(token(trust))
    idle = wire.Connection(dsn.host, dsn.port).login(dsn)
    connection = connect(dsn, autocommit=False)
    connection.execute("SELECT 1")
    gateway.process.send_signal(signal.SIGTERM)
    wait_until("probes see that it drains", lambda: gateway.ready()[0] == 503)
    assert gateway.readiness()["checks"]["listener"]["state"] == "failed"
    assert gateway.console("/livez")[0] == 200
    tag, body = idle.receive()
    assert tag == "E" and wire.error_fields(body)["C"] == "57P01"
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn.text())
    assert connection.execute("SELECT id FROM orders WHERE id = 1").fetchone() == (1,)
    connection.commit()
    ends(gateway, 10)


@POLICIES
def test_what_does_not_finish_in_time_is_ended(timed, trust, connect, shop, policy):
    gateway = timed(policy, {"drain": "2s"})
    dsn = gateway.dsn(token(trust))
    connection = connect(dsn)
    thread, errors = running(connection, ENDLESS)
    wait_until("the statement runs", lambda: active(shop, connection.info.backend_pid))
    gateway.process.send_signal(signal.SIGTERM)
    assert 1 < ends(gateway, 15)
    thread.join(timeout=10)
    assert errors


@POLICIES
def test_a_second_signal_ends_it_at_once(timed, trust, connect, shop, policy):
    gateway = timed(policy, {"drain": "600s"})
    connection = connect(gateway.dsn(token(trust)))
    thread, errors = running(connection, ENDLESS)
    wait_until("the statement runs", lambda: active(shop, connection.info.backend_pid))
    gateway.process.send_signal(signal.SIGTERM)
    wait_until("it drains", lambda: gateway.ready()[0] == 503)
    gateway.process.send_signal(signal.SIGINT)
    assert ends(gateway, 10, status=1) < 5
    thread.join(timeout=10)
    assert errors


@POLICIES
def test_a_client_that_does_not_read_does_not_hold_up_the_end(timed, trust, policy):
    gateway = timed(policy, {"drain": "1s"})
    dsn = gateway.dsn(token(trust))
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.login(dsn)
        connection.send(wire.query(BIG))
        connection.receive()
        gateway.process.send_signal(signal.SIGTERM)
        ends(gateway, 25)


@POLICIES
def test_a_server_that_stopped_answering_does_not_hold_up_the_end(timed, trust, connect, policy):
    gateway = timed(policy, {"drain": "1s"})
    connection = connect(gateway.dsn(token(trust)))
    pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    idle = connect(gateway.dsn(token(trust)))
    idle_pid = idle.execute("SELECT pg_backend_pid()").fetchone()[0]
    stopped = [pid, idle_pid]
    for stop in stopped:
        os.kill(stop, signal.SIGSTOP)
    try:
        thread, _ = running(connection, "SELECT 1")
        gateway.process.send_signal(signal.SIGTERM)
        ends(gateway, 25)
        thread.join(timeout=10)
        assert not thread.is_alive()
    finally:
        for stop in stopped:
            os.kill(stop, signal.SIGCONT)


def test_connections_before_login_do_not_hold_up_the_end(timed):
    gateway = timed(listen={"drain": "600s"})
    held = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(20)]
    gateway.process.send_signal(signal.SIGTERM)
    ends(gateway, 10)
    for connection in held:
        connection.close()


def test_a_target_that_stalls_does_not_hold_up_the_end(timed, trust):
    """Probes, the catalog and policy tests wait for servers too."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        gateway = timed()
        gateway.stop()
        gateway.config["targets"]["silent"] = {"postgres": {
            **gateway.config["targets"]["shop"]["postgres"], "port": silent.getsockname()[1], "tls": "off", "host": "127.0.0.1",
        }}
        del gateway.config["targets"]["silent"]["postgres"]["ca"]
        gateway.launch()
        silent.settimeout(30)
        # Its probe has called: the answer will not come.
        with silent.accept()[0]:
            threads = [threading.Thread(target=attempt, args=(gateway.dsn(token(trust), "silent"),)) for _ in range(3)]
            for thread in threads:
                thread.start()
            gateway.process.send_signal(signal.SIGTERM)
            ends(gateway, 15)
            for thread in threads:
                thread.join(timeout=10)


def attempt(dsn):
    try:
        psycopg.connect(dsn.text(), connect_timeout=20).close()
    except psycopg.Error:
        pass
