"""Clients that begin large messages and do not end them: together they take no more memory than one budget allows, the
small messages of others pass, and who goes on is served."""

import contextlib
import itertools
import struct
import threading
import time

import psycopg
import pytest

from lib import wire
from lib.gateway import PASS_THROUGH, Gateway
from lib.postgres import SUPERUSER
from lib.run import wait_until
from spine import POLICY
from streams import session

MIB = 2**20
BUDGET_MIB = 65  # as small as it may be
PATIENCE_SECONDS = 4
HALF_SENDERS = 4
NUMBERS = itertools.count(1)


@pytest.fixture(params=["pass-through", "sealed"])
def gateway(request, run, program, server, shop, trust):
    sealed = request.param == "sealed"
    made = Gateway(run, f"large-messages-{next(NUMBERS)}").policy(POLICY if sealed else PASS_THROUGH).trust(trust.entry())
    made.config["listen"]["postgres"]["limits"] = {
        "large_messages": f"{BUDGET_MIB}MiB", "large_message_timeout": f"{PATIENCE_SECONDS}s",
    }
    logins = shop.logins() if sealed else [{"user": SUPERUSER, "password": server.password}]
    yield made.target(server, "shop", logins, allow_privileged_login=not sealed).start()
    made.stop()


@pytest.fixture
def dsn(gateway, trust):
    return gateway.dsn(trust.token("agent-7", ["agents"]))


def resident_mib(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


def half(connection, begun):
    """Most of a message of 64 MiB; what the gateway does not read stays in the sockets."""
    with contextlib.suppress(OSError):
        connection.send(b"Q" + struct.pack("!i", 64 * MIB))
        begun.set()
        for _ in range(63):
            connection.send(b"x" * MIB)


def begin_half(connection):
    begun = threading.Event()
    thread = threading.Thread(target=half, args=(connection, begun), daemon=True)
    thread.start()
    begun.wait()
    return thread


def served(connection, sql="SELECT 1"):
    return [tag for tag, _ in connection.cycle(wire.query(sql))]


def test_half_sent_large_messages_stay_within_one_budget_and_end(gateway, dsn):
    with contextlib.ExitStack() as stack:
        bystander = stack.enter_context(session(dsn))
        served(bystander)
        before, peak, since = resident_mib(gateway), 0, time.monotonic()
        senders = [stack.enter_context(session(dsn)) for _ in range(HALF_SENDERS)]
        threads = [begin_half(sender) for sender in senders]
        while any(thread.is_alive() for thread in threads):
            assert served(bystander) == ["T", "D", "C", "Z"]
            peak = max(peak, resident_mib(gateway))
            assert time.monotonic() - since < 90, "each is ended and makes way for the next"
        assert before + 30 < peak < before + BUDGET_MIB + 40, (before, peak)
        wait_until("their memory has come back", lambda: resident_mib(gateway) < before + 40, seconds=30)


def behind_a_batch(connection, text):
    """A batch that waits for a lock, and a large Query behind it, which waits for the batch."""
    with contextlib.suppress(OSError):
        connection.send(wire.parse("SELECT id FROM orders LIMIT 1") + wire.bind() + wire.execute())
        connection.send(wire.query(text))


def test_whole_messages_that_wait_for_an_answer_stay_within_one_budget(gateway, dsn, shop):
    text = "SELECT length('" + "x" * (60 * MIB) + "')"
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(psycopg.connect(shop.admin.text()))
        holder.execute("LOCK TABLE orders")
        bystander = stack.enter_context(session(dsn))
        served(bystander)
        before, peak = resident_mib(gateway), 0
        senders = [stack.enter_context(session(dsn)) for _ in range(HALF_SENDERS)]
        for sender in senders:
            threading.Thread(target=behind_a_batch, args=(sender, text), daemon=True).start()
        wait_until("one message is whole", lambda: resident_mib(gateway) > before + 55, seconds=30)
        since = time.monotonic()
        while time.monotonic() - since < PATIENCE_SECONDS / 2:
            assert served(bystander) == ["T", "D", "C", "Z"]
            peak = max(peak, resident_mib(gateway))
        assert peak < before + BUDGET_MIB + 40, (before, peak)
        holder.rollback()
        for sender in senders:
            assert sender.receive_until("Z")[-1][0] == "Z"


def test_a_client_that_stops_in_the_middle_is_told(dsn):
    with session(dsn) as client:
        client.send(b"Q" + struct.pack("!i", 64 * MIB) + b"x" * (2 * MIB))
        tag, body = client.receive()
        fields = wire.error_fields(body)
        assert (tag, fields["S"], fields["C"]) == ("E", "FATAL", "57P05"), fields
        assert "large_message_timeout" in fields["H"]


def test_a_large_message_waits_for_room_and_is_served(dsn):
    """Nothing is refused: it takes its turn, and so does the one behind it."""
    large = "SELECT length('" + "x" * (40 * MIB) + "')"
    with session(dsn) as first, session(dsn) as second, session(dsn) as bystander:
        begin_half(first)
        wait_until("the first has the room", lambda: served(bystander) == ["T", "D", "C", "Z"])
        answers = []
        thread = threading.Thread(target=lambda: answers.extend([served(second, large), served(second, large)]), daemon=True)
        thread.start()
        first.socket.close()
        thread.join(60)
        # A sealed session reads no statement of that size, and says so.
        assert answers in ([["T", "D", "C", "Z"]] * 2, [["E", "Z"]] * 2)
        assert served(second) == ["T", "D", "C", "Z"]
