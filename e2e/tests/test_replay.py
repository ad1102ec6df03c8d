"""What a session's client got, replayed from the record: byte for byte what went over its socket, whatever it asked and however
it ended; what is past the limits is counted and digested in its place."""

import hashlib
import subprocess

import psycopg
import pytest
from lib import wire
from lib.gateway import PASS_THROUGH, Gateway, binary
from lib.postgres import SUPERUSER
from lib.relay import Relay
from lib.run import wait_until
from lib.transcript import behind_login, messages, replay, replayed_events
from spine import REDACTED
from streams import TABLES, admin, copy_data, session, writers_policy
from test_record import lines, of_type

MANY = "SELECT id, email, repeat('x', 20) FROM customers CROSS JOIN generate_series(1, 40) ORDER BY id"


@pytest.fixture(scope="module")
def masked(fresh_gateway, shop, trust):
    admin(shop, TABLES)
    gateway = fresh_gateway("replay", policy=writers_policy()).trust(trust.entry())
    gateway.config["audit"] = {"results": {"rows": 1_000_000, "bytes": "1GiB"}}
    yield gateway.start(level="debug")
    gateway.stop()


@pytest.fixture(scope="module")
def unrestricted(run, program, server, shop, trust):
    gateway = Gateway(run, "replay-through").policy(PASS_THROUGH).trust(trust.entry())
    gateway.config["audit"] = {"results": {"rows": 1_000_000, "bytes": "1GiB"}}
    login = [{"user": SUPERUSER, "password": server.password}]
    yield gateway.target(server, "shop", login, allow_privileged_login=True).start(level="debug")
    gateway.stop()


@pytest.fixture(params=["masked", "unrestricted"])
def gateway(request):
    return request.getfixturevalue(request.param)


def simple(connection):
    connection.cycle(wire.query("SELECT id, ssn, email FROM customers ORDER BY id LIMIT 3; SELECT 1; SELECT 'two'"))
    connection.cycle(wire.query(""))
    connection.cycle(wire.query("SELECT 1 / 0"))
    connection.cycle(wire.query("BEGIN; SELECT 1; ROLLBACK"))


def extended(connection):
    connection.send(wire.parse("SELECT id, email, ssn FROM customers WHERE id < $1", "s", [23]), wire.describe("S", "s"), wire.FLUSH)
    connection.receive_until("T")
    connection.cycle(wire.bind("", "s", ["5"], [1]), wire.describe("P", ""), wire.execute("", 2), wire.execute("", 0), wire.SYNC)
    connection.cycle(wire.close("S", "s"), wire.SYNC)
    connection.cycle(*(part for n in range(20) for part in (wire.parse(f"SELECT {n}"), wire.bind(), wire.execute())), wire.SYNC)


def refused(connection):
    connection.cycle(wire.query("SELECT id FROM customers WHERE ssn > '5'"))
    connection.cycle(wire.query("SELECT nothing FROM nowhere"))
    connection.cycle(wire.parse("SELECT id FROM customers ORDER BY ssn"), wire.bind(), wire.execute(), wire.SYNC)
    connection.cycle(wire.query("SELECT 1"))


def large(connection):
    connection.cycle(wire.query(MANY))
    connection.cycle(wire.query("SELECT repeat('long ', 100000), id FROM customers LIMIT 3"))


def copied(connection):
    connection.cycle(wire.query("COPY (SELECT id, ssn FROM customers ORDER BY id LIMIT 5) TO STDOUT"))
    connection.send(wire.query("COPY tags FROM STDIN"))
    connection.receive_until("G")
    connection.cycle(copy_data("1\tone\n"), wire.message("c"))


def noticed(connection):
    connection.cycle(wire.query("SET application_name = 'replayed'"))
    connection.cycle(wire.query("DROP TABLE IF EXISTS never_there"))


CONVERSATIONS = [simple, extended, refused, large, copied, noticed]


def one_session(gateway):
    """The last session's id, once it has ended."""
    session = of_type(lines(gateway), "session.start")[-1]["session"]
    wait_until("the session has ended", lambda: any(line["session"] == session for line in of_type(lines(gateway), "session.end")))
    return session


def through_relay(gateway, trust, talk):
    """(session, what its client got behind the login)"""
    dsn = gateway.dsn(trust.token("agent-7", ["writers"]))
    with Relay(dsn.port) as relay:
        with wire.Connection(dsn.host, relay.port).login(dsn) as connection:
            talk(connection)
            connection.send(wire.message("X"))
            with pytest.raises(wire.Closed):
                connection.receive()
        session = one_session(gateway)
        (answer,) = relay.answers().values()
    return session, behind_login(answer)


@pytest.mark.parametrize("talk", CONVERSATIONS, ids=lambda talk: talk.__name__)
def test_a_replay_is_byte_for_byte_what_the_client_got(gateway, trust, talk):
    session, got = through_relay(gateway, trust, talk)
    done = replay(gateway, session, "--bytes")
    assert done.returncode == 0, done.stderr
    assert done.stdout == got
    assert len(got) > 100


def test_a_name_that_would_turn_or_hide_what_stands_beside_it_is_shown_as_what_it_is(unrestricted, trust):
    with session(unrestricted.dsn(trust.token("agent\u202e7\u200b", ["writers"]))) as connection:
        connection.cycle(wire.query("SELECT 1"))
    shown = replay(unrestricted, one_session(unrestricted)).stdout.decode()
    assert "agent\\u{202e}7\\u{200b}" in shown and not {"\u202e", "\u200b"} & set(shown), shown


def test_the_record_s_words_are_those_of_the_bytes(masked, trust):
    session, got = through_relay(masked, trust, simple)
    sent = [item for event in replayed_events(masked, session) for item in event.get("sent", [])]
    rows = [item["row"] for item in sent if "row" in item]
    assert len(rows) == 3 + 2 + 1 and rows[3:] == [["1"], ["two"], ["1"]], rows
    assert rows[:3] == [[str(number), REDACTED, REDACTED] for number in (1, 2, 3)], rows
    assert len(sent) == len(messages(got))
    assert [item["error"]["C"] for item in sent if "error" in item] == ["22012"]
    text = replay(masked, session)
    assert text.returncode == 0 and b"SELECT 1 / 0" in text.stdout and b"22012" in text.stdout


@pytest.fixture(scope="module")
def limited(fresh_gateway, trust):
    gateway = fresh_gateway("replay-limited", policy=writers_policy()).trust(trust.entry())
    gateway.config["audit"] = {"results": {"rows": 10, "bytes": "1KiB"}}
    yield gateway.start(level="debug")
    gateway.stop()


def test_what_is_past_the_limits_is_counted_and_digested_in_its_place(limited, trust):
    session, got = through_relay(limited, trust, large)
    events = replayed_events(limited, session)
    sent = [item for event in events for item in event.get("sent", [])]
    marks = [item["left_out"] for item in sent if "left_out" in item]
    data = [message for tag, message in messages(got) if tag == "D"]
    kept = [item for item in sent if "row" in item]
    assert 0 < len(kept) <= 10 and len(kept) + sum(mark["rows"] for mark in marks) == len(data)
    # A mark's digest is that of the bytes which the client got there.
    at, left = 0, b"".join(data[len(kept) :])
    for mark in marks:
        part = left[at : at + mark["bytes"]]
        assert hashlib.sha256(part).hexdigest() == mark["sha256"]
        at += mark["bytes"]
    assert at == len(left)
    assert sum(event["event"]["body"]["rows"] for event in events if event["event"]["type"] == "session.sent") + sum(
        event["event"]["body"]["rows"] for event in events if event["event"]["type"] == "statement.outcome") >= len(data)
    short = replay(limited, session, "--bytes")
    assert short.returncode == 1 and b"past `audit.results`" in short.stderr, short.stderr
    rows = iter(range(len(data)))
    assert short.stdout == b"".join(message for tag, message in messages(got) if tag != "D" or next(rows) < len(kept))


def test_a_session_that_never_was_and_one_of_another_key_are_not_replayed(masked, limited, trust):
    session, _ = through_relay(masked, trust, noticed)
    missing = replay(masked, "nosuchsession")
    assert missing.returncode == 1 and b'session "nosuchsession" is not in the record' in missing.stderr
    foreign = replay(limited, session, data=masked.data_dir)
    assert foreign.returncode == 1 and b"could not unseal" in foreign.stderr, foreign.stderr


def test_nothing_of_an_answer_stands_in_the_record_in_clear(masked, trust):
    dsn = masked.dsn(trust.token("agent-7", ["writers"]))
    with psycopg.connect(dsn.text()) as connection:
        assert connection.execute("SELECT 'marked' || '-by-this-test' || repeat('-', 600)").fetchone()
    one_session(masked)
    for file in [*(masked.data_dir / "log").iterdir(), *(masked.data_dir / "blobs").iterdir()]:
        assert b"marked-by-this-test" not in file.read_bytes(), file


def test_a_pace_that_is_none_is_refused(masked):
    for speed in ["0", "-1", "nan"]:
        done = subprocess.run([binary(), "sessions", "replay", "x", "--config", masked.config_file, f"--speed={speed}"],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1 and "give a number above 0" in done.stderr, done
