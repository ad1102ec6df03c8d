"""Rows as wide as PostgreSQL makes them and cells of 64 MiB, through a session with masks, in bounded memory."""

import itertools
import socket
import time

import psycopg
import pytest

from lib import wire
from lib.run import wait_until
from spine import REDACTED
from streams import admin, session, tags_of, writers_policy
from test_copy import peak_bytes
from test_record import lines, of_type

MIB = 1024 * 1024
CELL_BYTES = 64 * MIB
ABOVE_IDLE_BYTES_MAX = 32 * MIB
WIDTH = 1600
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def tables(shop):
    columns = ", ".join(f"c{number} integer DEFAULT {number}" for number in range(WIDTH))
    admin(shop, f"""
        CREATE TABLE large (id integer, body text, raw bytea, ssn text, email bytea);
        ALTER TABLE large ALTER body SET STORAGE EXTERNAL, ALTER ssn SET STORAGE EXTERNAL;
        ALTER TABLE large ALTER raw SET STORAGE EXTERNAL, ALTER email SET STORAGE EXTERNAL;
        INSERT INTO large VALUES (1, repeat('x', {CELL_BYTES}), NULL, '123-45-6789', NULL);
        INSERT INTO large VALUES (2, 'small', NULL, repeat('s', {CELL_BYTES}), NULL);
        INSERT INTO large VALUES (3, 'small', decode(repeat('ab', {CELL_BYTES}), 'hex'), NULL, NULL);
        INSERT INTO large VALUES (4, 'small', NULL, NULL, decode(repeat('cd', {CELL_BYTES}), 'hex'));
        CREATE TABLE wide ({columns});
        INSERT INTO wide DEFAULT VALUES;
        GRANT SELECT ON large, wide TO shop_reader;
    """)


@pytest.fixture
def fresh(fresh_gateway, trust, tables):
    """A gateway of the test's own: the most memory it ever held is this test's."""
    masks = {"ssn": "*.large.ssn", "email": "*.large.email"}
    text = writers_policy()
    for label, pattern in masks.items():
        text = text.replace(f"public.customers.{label}", pattern)
    gateway = fresh_gateway(f"large-{next(NUMBERS)}", policy=text).trust(trust.entry()).start()
    yield gateway, gateway.dsn(trust.token("wendy", ["writers"]))
    gateway.stop()


def receive_large(connection):
    """(tag, length, first bytes, last bytes) of the next message, without keeping it."""
    head = connection._take(5)
    length = int.from_bytes(head[1:], "big") - 4
    first = connection._take(min(length, 64))
    last, left = first, length - len(first)
    while left:
        piece = connection._take(min(left, 64 * 1024))
        left -= len(piece)
        last = (last + piece)[-64:]
    return head[:1].decode(), length, first, last


def large_row(connection, *parts):
    """Sends, and gives back the one row's message; everything else must be what a SELECT answers."""
    connection.send(*parts)
    seen, row = [], None
    while not seen or seen[-1] != "Z":
        tag, length, first, last = receive_large(connection)
        assert tag != "E", (first, last)
        row = (length, first, last) if tag == "D" else row
        seen.append(tag)
    return row


def ask(sql, binary):
    return wire.parse(sql) + wire.bind(result_formats=[int(binary)]) + wire.describe() + wire.execute() + wire.SYNC


# What is selected, the row's length in text and in binary format.
BODIES = {
    "text kept": ("SELECT body FROM large WHERE id = 1", 2 + 4 + CELL_BYTES, 2 + 4 + CELL_BYTES),
    "bytea kept": ("SELECT raw FROM large WHERE id = 3", 2 + 4 + 2 + 2 * CELL_BYTES, 2 + 4 + CELL_BYTES),
    "text masked": ("SELECT id, ssn FROM large WHERE id = 2", 2 + 5 + 4 + len(REDACTED), 2 + 8 + 4 + len(REDACTED)),
    "bytea masked": ("SELECT email FROM large WHERE id = 4", 2 + 4 + 2 + 2 * len(REDACTED), 2 + 4 + len(REDACTED)),
    "a masked one before it": (
        "SELECT ssn, body FROM large WHERE id = 1", 2 + 4 + len(REDACTED) + 4 + CELL_BYTES, 2 + 4 + len(REDACTED) + 4 + CELL_BYTES,
    ),
    "masked before others": ("SELECT ssn, body FROM large WHERE id = 2", 2 + 4 + len(REDACTED) + 4 + 5, 2 + 4 + len(REDACTED) + 4 + 5),
}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_a_cell_of_64_mib_passes_in_bounded_memory(name, binary, fresh):
    gateway, dsn = fresh
    sql, *lengths = BODIES[name]
    with session(dsn) as connection:
        connection.cycle(wire.query("SELECT id FROM large"))
        idle = peak_bytes(gateway)
        length, first, last = large_row(connection, ask(sql, binary))
        assert length == lengths[binary]
        if "masked" in name:
            assert b"sss" not in first + last and b"cdcd" not in first + last and b"\xcd" not in first + last
        if not binary:
            assert large_row(connection, wire.query(sql))[0] == lengths[0]
        assert tags_of(connection.cycle(wire.query("SELECT 1"))) == ["T", "D", "C", "Z"]
        assert peak_bytes(gateway) - idle < ABOVE_IDLE_BYTES_MAX
    outcomes = of_type(lines(gateway), "statement.outcome", tag="SELECT 1")
    assert any(outcome["body"]["bytes"] == lengths[binary] + 5 and outcome["body"]["rows"] == 1 for outcome in outcomes)


def test_a_client_that_does_not_read_holds_no_memory(fresh, shop):
    gateway, dsn = fresh
    with session(dsn) as connection:
        connection.cycle(wire.query("SELECT id FROM large"))
        idle = peak_bytes(gateway)
        connection.send(wire.query("SELECT body FROM large WHERE id = 1"))
        assert connection.receive()[0] == "T"
        # Nothing is read until the server is held up on writing to the gateway.
        held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'"
        wait_until("the server waits for the gateway", lambda: admin(shop, held) == [(1,)])
        assert peak_bytes(gateway) - idle < ABOVE_IDLE_BYTES_MAX
        assert receive_large(connection)[1] == 2 + 4 + CELL_BYTES
        assert tags_of(connection.receive_until("Z")) == ["C", "Z"]


def test_time_grows_with_the_cell_and_not_faster(fresh):
    """Four times the bytes take about four times as long, not sixteen."""
    _, dsn = fresh
    with session(dsn) as connection:
        def seconds(bytes_wanted):
            begun = time.monotonic()
            large_row(connection, wire.query(f"SELECT substr(body, 1, {bytes_wanted}) FROM large WHERE id = 1"))
            return time.monotonic() - begun

        seconds(4 * MIB)
        # By turns: what else the machine does meets both.
        short, long = map(min, zip(*[(seconds(16 * MIB), seconds(64 * MIB)) for _ in range(5)], strict=True))
    assert long < 10 * short


def test_1600_columns_pass(fresh):
    _, dsn = fresh
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        assert connection.execute("SELECT * FROM wide").fetchone() == tuple(range(WIDTH))
        binary = connection.cursor(binary=True)
        assert binary.execute("SELECT * FROM wide").fetchone() == tuple(range(WIDTH))


def test_large_copy_data_passes_in_bounded_memory(fresh):
    gateway, dsn = fresh
    with session(dsn) as connection:
        connection.cycle(wire.query("SELECT id FROM large"))
        idle = peak_bytes(gateway)
        connection.send(wire.query("COPY (SELECT body FROM large WHERE id = 1) TO STDOUT"))
        seen = []
        while not seen or seen[-1][0] != "Z":
            seen.append(receive_large(connection)[:2])
        assert [tag for tag, _ in seen] == ["H", "d", "c", "C", "Z"] and seen[1][1] == CELL_BYTES + 1
        assert peak_bytes(gateway) - idle < ABOVE_IDLE_BYTES_MAX


def test_a_client_that_leaves_in_the_middle_of_a_cell_ends_the_statement(fresh, shop):
    _, dsn = fresh
    connection = session(dsn)
    connection.send(wire.query("SELECT body FROM large WHERE id = 1"))
    connection.receive_until("T")
    connection.socket.shutdown(socket.SHUT_RDWR)
    connection.socket.close()
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT body FROM large%'"
    wait_until("the statement ended", lambda: admin(shop, busy) == [(0,)])
