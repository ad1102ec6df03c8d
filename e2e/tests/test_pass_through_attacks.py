"""Attacks on the road of unrestricted sessions: a policy that comes to restrict them, a record that says another text
than the server ran, and memory."""

import contextlib
import itertools

import pytest
from lib import wire
from lib.gateway import PASS_THROUGH, Gateway
from lib.postgres import SUPERUSER
from lib.run import wait_until
from spine import POLICY, REDACTED
from streams import admin, copy_data, session, tags_of
from test_record import lines, of_type

LONG = "n" * 63  # the server keeps this much of a name
HARMLESS, OTHER = "SELECT 1 AS harmless", "SELECT 2 AS other"
FLOOD_NOTICES = 20_000
MEGABYTES_MAX = 60
NUMBERS = itertools.count(1)


@pytest.fixture
def gateway(run, program, server, shop, trust):
    """Of its own for each test: its record and its memory are looked at."""
    made = Gateway(run, f"unrestricted-{next(NUMBERS)}").policy(PASS_THROUGH).trust(trust.entry())
    login = [{"user": SUPERUSER, "password": server.password}]
    yield made.target(server, "shop", login, allow_privileged_login=True).start()
    made.stop()


@pytest.fixture
def client(gateway, trust):
    with session(gateway.dsn(trust.token("agent-7", ["agents"]))) as connection:
        yield connection


def test_a_superuser_is_no_login_for_unrestricted_sessions_either(run, program, server, shop, trust):
    made = Gateway(run, f"unrestricted-{next(NUMBERS)}").policy(PASS_THROUGH).trust(trust.entry())
    made.target(server, "shop", [{"user": SUPERUSER, "password": server.password}]).start()
    dsn = made.dsn(trust.token("agent-7", ["agents"]))
    with wire.Connection(dsn.host, dsn.port) as connection, pytest.raises(wire.LoginRefused) as refused:
        connection.login(dsn)
    assert refused.value.fields["C"] == "58030"
    made.stop()


def test_a_portal_from_before_a_sealing_policy_gives_no_more_rows(gateway, client, trust):
    sql = "SELECT email FROM customers ORDER BY id"
    client.cycle(wire.query("BEGIN"))
    before = client.cycle(wire.parse(sql), wire.bind("p"), wire.execute("p", 1), wire.SYNC)
    assert tags_of(before) == ["1", "2", "D", "s", "Z"]
    gateway.policy(POLICY)

    def masked():
        with contextlib.suppress(wire.Closed), session(gateway.dsn(trust.token("agent-7", ["agents"]))) as other:
            return REDACTED.encode() in dict(other.cycle(wire.query("SELECT email FROM customers WHERE id = 1"))).get("D", b"")

    wait_until("the policy is in force", masked)
    client.send(wire.execute("p", 1), wire.SYNC)
    assert tags_of([client.receive()]) == ["57P01"]
    with pytest.raises(wire.Closed):
        client.receive()


@pytest.mark.parametrize(
    "steps",
    [
        [wire.parse(HARMLESS, LONG + "x") + wire.SYNC, wire.close("S", LONG + "y") + wire.parse(OTHER, LONG + "z") + wire.SYNC,
         wire.bind("", LONG + "x") + wire.execute() + wire.SYNC],
        [wire.parse(HARMLESS, "s") + wire.SYNC, wire.query(f"DEALLOCATE s; PREPARE s AS {OTHER}"),
         wire.bind("", "s") + wire.execute() + wire.SYNC],
        [wire.parse(HARMLESS, "s") + wire.SYNC, wire.query(f"DO $$ BEGIN EXECUTE 'deallocate s'; EXECUTE 'PREPARE s AS {OTHER}'; END $$"),
         wire.bind("", "s") + wire.execute() + wire.SYNC],
    ],
    ids=["cut names", "deallocated", "deallocated inside"],
)
def test_a_bind_is_not_recorded_with_another_text_than_runs(gateway, client, steps):
    for step in steps:
        answers = client.cycle(step)
    assert [body[-1:] for tag, body in answers if tag == "D"] == [b"2"]
    harmless = of_type(lines(gateway), "statement.parse")[0]
    (bound,) = of_type(lines(gateway), "statement.intent", portal="")
    assert bound["body"]["sql"]["sha256"] != harmless["body"]["sql"]["sha256"]


def test_a_bind_is_recorded_with_the_text_of_its_parse(gateway, client):
    client.cycle(wire.parse(HARMLESS, "s") + wire.parse(OTHER, "t") + wire.SYNC)
    client.cycle(wire.query("DEALLOCATE t"))
    client.cycle(wire.bind("", "s") + wire.execute() + wire.SYNC)
    (bound,) = of_type(lines(gateway), "statement.intent", portal="")
    assert bound["body"]["sql"]["sha256"] == of_type(lines(gateway), "statement.parse")[0]["body"]["sql"]["sha256"]


def test_texts_that_differ_in_another_encoding_differ_on_record(gateway, client):
    client.cycle(wire.query("SET client_encoding = 'LATIN1'"))
    for last in (b"\xe8", b"\xe9"):
        assert tags_of(client.cycle(wire.message("Q", b"SELECT 'caf" + last + b"'\0")))[-1] == "Z"
        name = b"caf" + last + b"\0"
        client.cycle(wire.message("P", name + b"SELECT '" + last + b"'\0\0\0"), wire.SYNC)
        client.cycle(wire.message("B", b"\0" + name + b"\0" * 6), wire.execute(), wire.SYNC)
    client.cycle(wire.query("SET client_encoding = 'UTF8'"))
    client.cycle(wire.query("SELECT 1"))
    wait_until("all is on record", lambda: len(of_type(lines(gateway), "statement.intent")) >= 7)
    told = [e["body"] for e in lines(gateway) if e["type"] in ("statement.intent", "statement.parse")]
    assert [body.get("encoding") for body in told] == [None, *["LATIN1"] * 7, None]
    first, second = told[1:4], told[4:7]
    assert len({body["digest"] for body in first + second}) == 4
    assert [body["digest"] for body in first[1:]] == [first[1]["digest"]] * 2
    assert [body.get("name") for body in first + second] == [None, *["caf\\xe8"] * 2, None, *["caf\\xe9"] * 2]


def test_what_ran_behind_a_copy_that_failed_is_not_recorded_as_skipped(gateway, client, shop):
    admin(shop, "CREATE TABLE IF NOT EXISTS marks (number integer); TRUNCATE marks")
    client.send(
        wire.query("COPY marks FROM STDIN") + copy_data("no number\n")
        + wire.query("INSERT INTO marks VALUES (1)") + wire.query("SELECT 'another'")
    )
    with pytest.raises(wire.Closed):
        while True:
            client.receive()
    wait_until("the session has ended", lambda: of_type(lines(gateway), "session.end"))
    assert admin(shop, "SELECT number FROM marks") == [(1,)]
    intents = [e["body"]["request_id"] for e in of_type(lines(gateway), "statement.intent")]
    results = {e["body"]["request_id"]: e["body"]["result"] for e in of_type(lines(gateway), "statement.outcome")}
    assert [results.get(intent) for intent in intents] == ["error", "outcome_unknown", "outcome_unknown"]


def test_notices_behind_the_first_statement_of_a_query_do_not_fill_the_memory(gateway, client):
    flood = f"FOR i IN 1..{FLOOD_NOTICES} LOOP RAISE NOTICE '%', repeat('x', 8000); END LOOP"
    # Not read until all of it is said: a client that waits must cost the gateway nothing.
    client.send(wire.query(f"SELECT 1; DO $$ BEGIN {flood}; END $$; SELECT 2"))
    peak = 0
    messages = []
    while not messages or messages[-1][0] != "Z":
        messages.append(client.receive())
        if len(messages) % 1000 == 0:
            peak = max(peak, megabytes(gateway))
    assert [tag for tag, _ in messages if tag in "CZ"] == ["C", "C", "C", "Z"] and peak < MEGABYTES_MAX
    ends = [(e["body"]["index"], e["body"]["last"]) for e in of_type(lines(gateway), "statement.outcome")]
    assert ends == [(0, False), (1, False), (2, True)]


def test_a_query_that_ends_in_notices_ends_on_record(gateway, client):
    """LOG lines behind the last statement: its end is told by ReadyForQuery alone."""
    client.cycle(wire.query("SET client_min_messages = debug5"))
    answers = client.cycle(wire.query("SELECT 1"))
    assert answers[-1][0] == "Z"
    last = of_type(lines(gateway), "statement.outcome")[-1]["body"]
    assert last["last"] and last["tag"] == "SELECT 1"


def test_names_cost_no_more_than_the_server_keeps_of_them(gateway, client):
    before = megabytes(gateway)
    for number in range(10):
        client.cycle(wire.parse(HARMLESS, f"{number}" + "n" * 10_000_000), wire.SYNC)
    assert megabytes(gateway) - before < MEGABYTES_MAX


def megabytes(gateway):
    status = open(f"/proc/{gateway.process.pid}/status").read()
    (resident,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(resident) // 1024
