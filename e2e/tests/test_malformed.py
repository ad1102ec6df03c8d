"""Whole messages that do not decode: the server answers them with an error and goes on, and so does a session with masks."""

import struct

import pytest

from lib import wire
from lib.run import wait_until
from streams import serving, session
from test_record import lines, of_type


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    yield from serving(fresh_gateway, shop, trust, "malformed")


@pytest.fixture
def writer(gateway, trust):
    return gateway.dsn(trust.token("wendy", ["writers"]))


def bind_with(formats, values, results):
    body = b"\0\0" + struct.pack(f"!h{len(formats)}h", len(formats), *formats) + struct.pack("!h", len(values))
    body += b"".join(struct.pack("!i", len(value)) + value for value in values)
    return wire.message("B", body + struct.pack(f"!h{len(results)}h", len(results), *results))


PARSED = wire.parse("SELECT $1::text", "", [25])
AFTER = wire.query("SELECT 1")
MESSAGES = {
    "a query that is not UTF-8": wire.message("Q", b"SELECT '\xff'\0"),
    "a cut character": wire.message("Q", b"SELECT '\xe9\x80'\0"),
    "a character at the end": wire.message("Q", b"SELECT \xf0\x9f\0"),
    "a parse that is not UTF-8": wire.message("P", b"\0SELECT '\xfe\xff'\0\0\0") + wire.SYNC,
    "a statement's name": wire.message("P", b"\xc3(\0SELECT 1\0\0\0") + wire.SYNC,
    "a bind's statement": wire.message("B", b"\0\xff\0\0\0\0\0\0\0") + wire.SYNC,
    "a bind's portal": wire.message("B", b"\xff\0\0\0\0\0\0\0\0") + wire.SYNC,
    "a describe's name": wire.message("D", b"S\xff\0") + wire.SYNC,
    "an execute's portal": wire.message("E", b"\xff\0\0\0\0\0") + wire.SYNC,
    "a close's name": wire.message("C", b"S\xff\0") + wire.SYNC,
    "a parameter's format": PARSED + bind_with([2], [b"x"], []) + wire.SYNC,
    "two formats for one parameter": PARSED + bind_with([0, 0], [b"x"], []) + wire.SYNC,
    "bytes after a query": wire.message("Q", b"SELECT 1\0x"),
    "bytes after a bind": wire.parse("SELECT 1") + wire.message("B", b"\0\0\0\0\0\0\0\0x") + wire.SYNC,
    "a bind cut short": PARSED + wire.message("B", b"\0\0\0\0\0\x01") + wire.SYNC,
    "what follows is skipped": wire.message("P", b"\0\xff\0\0\0") + wire.bind() + wire.execute() + wire.query("SELECT 2") + wire.SYNC,
    "in a batch": wire.parse("SELECT 3") + wire.bind() + wire.execute() + wire.message("P", b"\0\xff\0\0\0") + wire.SYNC,
}


@pytest.mark.parametrize("in_block", [False, True])
@pytest.mark.parametrize("name", MESSAGES)
def test_the_answer_is_the_servers(name, in_block, writer, shop):
    def play(dsn):
        with session(dsn) as connection:
            seen = connection.cycle(wire.query("BEGIN" if in_block else "SELECT 0"))
            seen += connection.cycle(MESSAGES[name]) + connection.cycle(AFTER) + connection.cycle(wire.query("ROLLBACK"))
        fields = [(tag, wire.error_fields(body) if tag in "EN" else body) for tag, body in seen]
        return [(tag, {code: body[code] for code in "SVCM"} if tag in "EN" else body) for tag, body in fields]

    assert play(writer) == play(shop.reader)


def test_what_the_gateway_says_in_the_servers_place_is_on_record(gateway, writer):
    with session(writer) as connection:
        connection.cycle(MESSAGES["a query that is not UTF-8"])
        connection.cycle(wire.bind(statement="nowhere") + wire.SYNC)
        connection.cycle(wire.execute("nowhere") + wire.SYNC)
        connection.cycle(wire.query("BEGIN"))
        connection.cycle(wire.query("SELECT 1/0"))
        connection.cycle(wire.query("SELECT 1"))

    def said():
        return [reason for e in of_type(lines(gateway), "statement.intent", decision="refuse") for reason in e["body"].get("reasons", [])]

    for code in ("22021", "26000", "34000", "25P02"):
        wait_until(f"{code} is on record", lambda: f"answered with {code} in the server's place" in said())
