"""When an identity ends, so does its session: at once where somebody took it back, between transactions where its time
is over, and on both roads whatever the client does meanwhile."""

import contextlib
import threading
import time

import pytest

from lib import wire
from lib.run import wait_until
from streams import admin, session

ROADS = ["plain", "through"]
# Tokens may be a minute past their end: clocks differ.
SKEW_SECONDS = 60
# What a token here has left: enough to log in and to begin on a busy machine.
LEFT_SECONDS = 10
GRACE_SECONDS = 60


@pytest.fixture(params=ROADS)
def road(request):
    return request.getfixturevalue(request.param)


def last_words(connection):
    """What a session is told at its end, past the answers that come before."""
    with contextlib.suppress(wire.Closed, OSError):
        while True:
            tag, body = connection.receive()
            if tag == "E" and wire.error_fields(body)["S"] == "FATAL":
                return wire.error_fields(body)
    return None


def lent(gateway, token):
    made = gateway.handle(token)
    return made, session(gateway.dsn(made["password"], user=made["handle"]))


@pytest.mark.parametrize("doing", ["nothing", "a statement"])
def test_a_revoked_handle_ends_its_session_inside_a_transaction_too(road, trust, shop, doing):
    token = trust.token("agent-7", ["agents"])
    made, client = lent(road, token)
    with client:
        client.cycle(wire.query("BEGIN"))
        assert client.cycle(wire.query("SELECT 1"))[-1] == ("Z", b"T")
        pid = client.backend[0]
        if doing == "a statement":
            client.send(wire.query("SELECT pg_sleep(600)"))
        since = time.monotonic()
        assert road.ask("DELETE", f"/v1/handles/{made['handle']}", token=token)[0] == 204
        fields = last_words(client)
        assert fields["C"] == "28000" and "revoked" in fields["M"], fields
        assert time.monotonic() - since < GRACE_SECONDS / 2
    alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
    wait_until("the server's session is over, too", lambda: admin(shop, alive) == [(0,)])


def test_an_expired_token_leaves_an_open_transaction_time_to_end(road, trust):
    dsn = road.dsn(trust.token("agent-7", ["agents"], ttl=f"-{SKEW_SECONDS - LEFT_SECONDS}s"))
    with session(dsn) as client:
        client.cycle(wire.query("BEGIN"))
        other = session(dsn)
        assert "expired" in last_words(other)["M"]
        assert client.cycle(wire.query("SELECT 1"))[-1] == ("Z", b"T")
        client.send(wire.query("COMMIT"))
        assert [tag for tag, _ in client.receive_until("Z")] == ["C", "Z"]
        assert "expired" in last_words(client)["M"]


def keep_sending(client, message):
    with contextlib.suppress(OSError):
        while True:
            client.send(message)


@pytest.mark.parametrize("flood", [wire.query("SELECT 1"), wire.SYNC], ids=["queries", "syncs"])
def test_statements_sent_ahead_without_end_are_given_no_grace(road, trust, flood):
    """Each is a transaction of its own, and there is always one that is not answered."""
    with session(road.dsn(trust.token("agent-7", ["agents"], ttl=f"-{SKEW_SECONDS - LEFT_SECONDS}s"))) as client:
        sender = threading.Thread(target=keep_sending, args=(client, flood * 50), daemon=True)
        since = time.monotonic()
        sender.start()
        fields = last_words(client)
        # Where the client still sends, the closed socket may swallow the words.
        assert fields is None or "expired" in fields["M"], fields
        assert time.monotonic() - since < GRACE_SECONDS / 2
    sender.join(GRACE_SECONDS)
    assert not sender.is_alive()
