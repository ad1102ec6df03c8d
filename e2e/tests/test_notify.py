"""LISTEN and NOTIFY: a session with masks hears the channels it may hear and the echo of its own words, nothing else."""

import asyncio

import asyncpg
import psycopg
import pytest

from lib import wire
from streams import TABLES, admin, session, tags_of, writers_policy

SECRET = "123-45-6789"


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    admin(shop, TABLES)
    made = fresh_gateway("notifying", policy=writers_policy()).trust(trust.entry())
    made.config["targets"]["shop"]["postgres"]["channels"] = ["news"]
    made.start(level="debug")
    yield made
    made.stop()


@pytest.fixture
def writer(gateway, trust):
    return gateway.dsn(trust.token("wendy", ["writers"]))


@pytest.fixture
def triggered(shop):
    """A table whose trigger notifies what only it knows."""
    admin(shop, f"""
        CREATE SCHEMA told;
        CREATE TABLE told.rows (id integer);
        CREATE FUNCTION told.tell() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_notify(''leak'', ''{SECRET}''); RETURN NEW; END';
        CREATE TRIGGER tell AFTER INSERT ON told.rows FOR EACH ROW EXECUTE FUNCTION told.tell();
        GRANT USAGE ON SCHEMA told TO shop_reader;
        GRANT SELECT, INSERT ON told.rows TO shop_reader;
    """)
    yield
    admin(shop, "DROP SCHEMA told CASCADE")


def heard(messages):
    """(channel, payload) of the notifications among them."""
    return [tuple(body[4:-1].decode().split("\0")) for tag, body in messages if tag == "A"]


OWN = [
    wire.query("NOTIFY mine, 'hello'"),
    wire.query("BEGIN; NOTIFY mine, 'hello'; COMMIT"),
    wire.query("SELECT pg_notify('mine', 'hello')"),
    wire.query("SELECT pg_catalog.pg_notify('mine'::text, 'hello'::text)"),
    wire.parse("NOTIFY mine, 'hello'") + wire.bind() + wire.execute() + wire.SYNC,
    wire.parse("SELECT pg_notify($1, $2)") + wire.bind(values=["mine", "hello"]) + wire.execute() + wire.SYNC,
    wire.parse("SELECT pg_notify('mine', $1)") + wire.bind(values=["hello"]) + wire.execute() + wire.SYNC,
]


@pytest.mark.parametrize("number", range(len(OWN)))
def test_a_session_hears_itself(number, writer):
    with session(writer) as connection:
        connection.cycle(wire.query("LISTEN mine"))
        for _ in range(2):
            assert heard(connection.cycle(OWN[number])) == [("mine", "hello")]


def test_the_echo_comes_where_the_server_sends_it(writer, shop):
    script = [
        wire.query("LISTEN mine"), wire.query("NOTIFY mine"), wire.query("BEGIN"), wire.query("NOTIFY mine, 'a'"),
        wire.query("NOTIFY mine, 'a'"), wire.query("SAVEPOINT s"), wire.query("NOTIFY mine, 'undone'"),
        wire.query("ROLLBACK TO s"), wire.query("NOTIFY mine, 'b'"), wire.query("COMMIT"), wire.query("SELECT 1"),
        wire.query("NOTIFY mine, 'x'") + wire.query("NOTIFY mine, 'y'"), wire.query("UNLISTEN *"), wire.query("NOTIFY mine, 'z'"),
    ]

    def play(dsn):
        with session(dsn) as connection:
            seen = []
            for part in script:
                seen += connection.cycle(part)
            # Of two queries sent at once the second's answer is still to be read.
            seen += connection.receive_until("Z")
        return [(tag, body[4:] if tag == "A" else body) for tag, body in seen if tag != "S"]

    assert play(writer) == play(shop.reader)


def test_another_sessions_words_are_not_heard_but_on_a_named_channel(writer):
    with session(writer) as listener, session(writer) as speaker:
        listener.cycle(wire.query("LISTEN mine; LISTEN news"))
        speaker.cycle(wire.query("NOTIFY mine, 'secret'; NOTIFY news, 'public'"))
        # What was sent before this statement has come before its answer.
        assert heard(listener.cycle(wire.query("SELECT 1"))) == [("news", "public")]


def test_a_guess_of_anothers_words_is_not_confirmed(writer):
    with session(writer) as listener, session(writer) as speaker:
        listener.cycle(wire.query("LISTEN mine"))
        assert heard(listener.cycle(wire.query("NOTIFY mine, 'guess'"))) == [("mine", "guess")]
        speaker.cycle(wire.query("NOTIFY mine, 'guess'"))
        assert heard(listener.cycle(wire.query("SELECT 1"))) == []
        # Not even while its own is on its way.
        listener.cycle(wire.query("BEGIN; NOTIFY mine, 'guess'"))
        speaker.cycle(wire.query("NOTIFY mine, 'guess'"))
        assert heard(listener.cycle(wire.query("COMMIT"))) == [("mine", "guess")]


TELL = "INSERT INTO told.rows VALUES (1)"
GUESSES = {
    "the trigger alone": lambda guess: [TELL],
    "before it": lambda guess: [f"NOTIFY leak, '{guess}'", TELL],
    "twice in a transaction, then it": lambda guess: ["BEGIN", *[f"NOTIFY leak, '{guess}'"] * 2, "COMMIT", TELL],
    "in one query": lambda guess: [f"NOTIFY leak, '{guess}'; {TELL}"],
    "after it in its transaction": lambda guess: ["BEGIN", TELL, "NOTIFY leak, 'a'", f"NOTIFY leak, '{guess}'", "COMMIT"],
    "undone, then it": lambda guess: ["BEGIN", "SAVEPOINT s", f"NOTIFY leak, '{guess}'", "ROLLBACK TO s", TELL, "COMMIT"],
    "failed, then it": lambda guess: [f"NOTIFY leak, '{guess}'; SELECT 1/0", TELL],
    "never run, then it": lambda guess: [f"SELECT pg_notify('leak', '{guess}') WHERE false", TELL],
    "by COPY": lambda guess: ["BEGIN", f"NOTIFY leak, '{guess}'", "COPY told.rows FROM STDIN", "COMMIT"],
}


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("name", GUESSES)
def test_what_a_trigger_says_is_neither_heard_nor_confirmed(name, at_once, writer, triggered):
    """A right guess and a wrong one of the same length give the same answers, byte by byte."""
    def play(guess):
        with session(writer) as connection:
            connection.cycle(wire.query("LISTEN leak"))
            parts = [
                wire.query(sql) + (wire.message("d", b"1\n") + wire.message("c") if "STDIN" in sql else b"")
                for sql in GUESSES[name](guess)
            ]
            if at_once:
                connection.send(b"".join(parts))
                seen = [message for _ in parts for message in connection.receive_until("Z")]
            else:
                seen = [message for part in parts for message in connection.cycle(part)]
            seen += connection.cycle(wire.query("SELECT 1"))
            # The sender's process id differs from session to session.
            return [(tag, body[4:] if tag == "A" else body) for tag, body in seen if tag != "E"]

    wrong = "987-65-4321"
    right_answers, wrong_answers = play(SECRET), play(wrong)
    assert str(right_answers).replace(SECRET, wrong) == str(wrong_answers)
    assert tags_of(right_answers).count("A") <= 1


@pytest.mark.parametrize("sql", [
    "SELECT pg_notify('mine', ssn) FROM customers",
    "SELECT pg_notify(ssn, 'x') FROM customers",
    "SELECT pg_notify('mine', 'x') FROM customers WHERE ssn LIKE '1%'",
    "SELECT pg_notify('mine', (SELECT ssn FROM customers LIMIT 1))",
    "SELECT pg_notify('mine', id::text) FROM customers",
])
def test_what_is_computed_is_not_notified(sql, connect, writer):
    connection = connect(writer)
    with pytest.raises(psycopg.Error) as caught:
        connection.execute(sql)
    assert caught.value.sqlstate == "42501"
    assert connection.execute("SELECT pg_notify('mine', 'x')").fetchone() == ("",)


def test_drivers_hear_themselves(connect, writer):
    connection = connect(writer)
    connection.execute("LISTEN mine")
    connection.execute("SELECT pg_notify(%s, %s)", ("mine", "hello"))
    (echo,) = connection.notifies(timeout=5, stop_after=1)
    assert (echo.channel, echo.payload, echo.pid) == ("mine", "hello", connection.info.backend_pid)

    async def run():
        other = await asyncpg.connect(
            host=writer.host, port=writer.port, user=writer.user, password=writer.password, database=writer.dbname, ssl=False
        )
        try:
            came = asyncio.get_running_loop().create_future()
            await other.add_listener("mine", lambda _, pid, channel, payload: came.set_result((pid, channel, payload)))
            await other.execute("SELECT pg_notify($1, $2)", "mine", "hello")
            assert await asyncio.wait_for(came, 5) == (other.get_server_pid(), "mine", "hello")
        finally:
            await other.close()

    asyncio.run(run())
