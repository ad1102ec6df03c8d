"""COPY through a session with masks: in where policy allows it, out with sealed cells masked, and no way around."""

import asyncio
import subprocess

import asyncpg
import pytest

from lib import wire
from lib.dsn import psql_command
from lib.run import wait_until
from streams import COPY_DONE, admin, copy_data, copy_fail, serving, session, tags_of, writers_policy
from test_record import lines, of_type

FRAME_BYTES = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def gateway(fresh_gateway, shop, trust):
    yield from serving(fresh_gateway, shop, trust, "copying")


@pytest.fixture(scope="module")
def writer(gateway, trust):
    return gateway.dsn(trust.token("wendy", ["writers"]))


@pytest.fixture(scope="module")
def reader(gateway, trust):
    return gateway.dsn(trust.token("agent-7", ["agents"]))


@pytest.fixture(autouse=True)
def empty_tables(shop, gateway):
    admin(shop, "TRUNCATE notes, tags")


def notes(shop):
    return admin(shop, "SELECT id, body FROM notes ORDER BY id")


def test_psycopg_copies_in_and_out(connect, writer, shop):
    connection = connect(writer)
    with connection.cursor() as cursor:
        with cursor.copy("COPY notes (id, body) FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row((number, f"note {number}"))
        assert cursor.rowcount == 1000
        with cursor.copy("COPY (SELECT id, body FROM notes WHERE id < 3 ORDER BY id) TO STDOUT") as copy:
            assert list(copy.rows()) == [(str(number), f"note {number}") for number in range(3)]
    assert len(notes(shop)) == 1000
    assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1000,)


def test_asyncpg_copies_records_in_binary_and_a_query_out(writer, shop):
    async def run():
        connection = await asyncpg.connect(
            host=writer.host, port=writer.port, user=writer.user, password=writer.password, database=writer.dbname, ssl=False
        )
        try:
            records = [(number, f"note {number}") for number in range(500)]
            assert await connection.copy_records_to_table("notes", records=records, columns=["id", "body"]) == "COPY 500"
            pieces = []

            async def keep(piece):
                pieces.append(piece)

            await connection.copy_from_query("SELECT id FROM notes WHERE id > $1 ORDER BY id", 497, output=keep)
            assert b"".join(pieces) == b"498\n499\n"
            return await connection.fetchval("SELECT count(*) FROM notes")
        finally:
            await connection.close()

    assert asyncio.run(run()) == 500
    assert notes(shop)[499] == (499, "note 499")


def test_psql_copies_files_of_the_client(writer, tmp_path, shop):
    source, copied = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,body\n1,"a, b"\n2,\n')
    script = f"\\copy notes (id, body) from '{source}' with (format csv, header)\n\\copy notes (id, body) to '{copied}' csv header\n"
    done = subprocess.run(
        [psql_command(), "-X", "-v", "ON_ERROR_STOP=1"], input=script, env=writer.environment(), capture_output=True,
        text=True, check=False, timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert copied.read_text() == source.read_text()
    assert notes(shop) == [(1, "a, b"), (2, None)]


# Each script runs on the server itself and through the gateway, message by message: nobody can tell them apart.
# A cycle is (what is sent, the tag up to which answers are read).
NOTES = "COPY notes (id, body) FROM STDIN"
BATCH = wire.parse(NOTES) + wire.bind() + wire.execute()
SCRIPTS = {
    "simple": [
        (wire.query(NOTES), "G"),
        (copy_data("1\tone\n") + copy_data("2\ttwo\n") + COPY_DONE, "Z"),
        (wire.query("COPY notes (id, body) TO STDOUT"), "Z"),
        (wire.query("COPY notes (id, body) TO STDOUT (FORMAT binary)"), "Z"),
        (wire.query("COPY (SELECT id FROM notes) TO STDOUT CSV HEADER"), "Z"),
    ],
    "data sent ahead of the server's word": [(wire.query(NOTES) + copy_data("1\tone\n") + COPY_DONE, "Z")],
    "rows cut anywhere": [
        (wire.query(NOTES), "G"),
        (b"".join(copy_data(piece) for piece in ["", "1", "\t", "on", "e\n2\ttwo", "\n"]) + COPY_DONE, "Z"),
    ],
    "a sync in the middle is ignored": [
        (BATCH + wire.SYNC, "G"),
        (copy_data("1\tone\n") + wire.FLUSH + wire.SYNC + copy_data("2\ttwo\n") + COPY_DONE + wire.SYNC, "Z"),
    ],
    "extended, sent ahead whole": [(BATCH + copy_data("1\tone\n") + COPY_DONE + wire.SYNC, "Z")],
    "extended, two copies and a select": [
        (BATCH + copy_data("1\tone\n") + COPY_DONE, "G"),
        (BATCH + copy_data("2\ttwo\n") + COPY_DONE + wire.parse("SELECT id FROM notes") + wire.bind(), "G"),
        (wire.describe() + wire.execute() + wire.SYNC, "Z"),
    ],
    "the client gives up": [
        (wire.query(NOTES), "G"),
        (copy_data("1\tone\n") + copy_fail("changed my mind"), "Z"),
        (wire.query("SELECT id FROM notes"), "Z"),
    ],
    "the client gives up, extended": [
        (BATCH, "G"), (copy_data("1\tone\n") + copy_fail() + wire.SYNC, "Z"), (wire.query("SELECT id FROM notes"), "Z"),
    ],
    "a row is wrong and more follows": [
        (wire.query(NOTES), "G"),
        (copy_data("x\tone\n") + b"".join(copy_data(f"{n}\ttwo\n") for n in range(2000)) + COPY_DONE, "Z"),
        (wire.query("SELECT id FROM notes"), "Z"),
    ],
    "a row is wrong and more follows, extended": [
        (BATCH, "G"),
        (copy_data("x\tone\n") + b"".join(copy_data(f"{n}\ttwo\n") for n in range(2000)) + COPY_DONE + wire.SYNC, "Z"),
        (wire.query("SELECT id FROM notes"), "Z"),
    ],
    "a constraint fails": [
        (wire.query(NOTES), "G"), (copy_data("1000000\tone\n") + COPY_DONE, "Z"),
        (wire.query(NOTES), "G"), (copy_data("1\tone\n1\ttwo\n") + COPY_DONE, "Z"),
    ],
    "several in one query": [
        (wire.query("COPY tags FROM STDIN; SELECT 1; COPY notes (id, body) FROM STDIN; COPY tags TO STDOUT"), "G"),
        (copy_data("1\ta\n") + COPY_DONE + copy_data("7\tseven\n") + copy_data("8\teight\n") + COPY_DONE, "Z"),
    ],
    "the first of several fails": [
        (wire.query("COPY tags FROM STDIN; COPY notes (id, body) FROM STDIN"), "G"),
        (copy_data("x\ta\n") + COPY_DONE + copy_data("7\tseven\n") + COPY_DONE, "Z"),
        (wire.query("SELECT id FROM notes"), "Z"),
    ],
    "in a transaction": [
        (wire.query("BEGIN"), "Z"), (wire.query(NOTES), "G"), (copy_data("1\tone\n") + COPY_DONE, "Z"),
        (wire.query(NOTES), "G"), (copy_data("x\n") + COPY_DONE, "Z"), (wire.query(NOTES), "Z"),
        (wire.query("ROLLBACK"), "Z"),
    ],
    "data nobody asked for": [
        (copy_data("1\tone\n") + COPY_DONE + copy_fail() + wire.query("SELECT 1"), "Z"),
        (wire.parse("SELECT 1") + copy_data("1\tone\n") + wire.bind() + COPY_DONE + wire.execute() + wire.SYNC, "Z"),
    ],
    "the statement fails before it asks": [
        (wire.query("COPY notes (id, body) FROM STDIN WITH (DELIMITER 'too long')") + copy_data("1\n") + COPY_DONE, "Z"),
        (wire.parse("SELECT 1/0") + wire.bind() + wire.execute() + BATCH + copy_data("1\ta\n") + COPY_DONE + wire.SYNC, "Z"),
    ],
}


def play(dsn, script):
    seen = []
    with session(dsn) as connection:
        for sent, last in script:
            connection.send(sent)
            # A notice or status the server sends on its own does not belong to the script.
            seen.append([plain(*message) for message in connection.receive_until(last) if message[0] not in "NS"])
    return seen


def plain(tag, body):
    """What the gateway says itself, in the server's words, lacks the place in the server's source."""
    if tag == "E" and wire.error_fields(body)["C"] == "25P02":
        return tag, {code: text for code, text in wire.error_fields(body).items() if code in "SVCM"}
    return tag, body


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_server_and_the_gateway_say_the_same(name, shop, writer):
    direct = play(shop.reader, SCRIPTS[name])
    rows = admin(shop, "SELECT id, body FROM notes ORDER BY id"), admin(shop, "SELECT * FROM tags")
    admin(shop, "TRUNCATE notes, tags")
    assert play(writer, SCRIPTS[name]) == direct
    assert (admin(shop, "SELECT id, body FROM notes ORDER BY id"), admin(shop, "SELECT * FROM tags")) == rows


def test_another_message_in_the_middle_ends_the_session_and_the_copy(writer, shop):
    with session(writer) as connection:
        connection.send(wire.query(NOTES))
        connection.receive_until("G")
        connection.send(copy_data("1\tone\n") + wire.query("SELECT 1"))
        tag, body = connection.receive()
        assert (tag, wire.error_fields(body)["C"]) == ("E", "08P01")
        with pytest.raises(wire.Closed):
            connection.receive()
    assert notes(shop) == []


@pytest.mark.parametrize("half", [False, True])
def test_a_client_that_vanishes_leaves_nothing(half, writer, shop):
    connection = session(writer)
    connection.send(wire.query(NOTES))
    connection.receive_until("G")
    busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY notes%' AND state = 'active'"
    wait_until("the copy runs", lambda: admin(shop, busy) == [(1,)])
    frame = copy_data("1\tone\n")
    connection.send(frame[:-3] if half else frame)
    connection.socket.close()
    wait_until("the copy ended", lambda: admin(shop, busy) == [(0,)])
    assert notes(shop) == []


def test_a_large_frame_passes_in_pieces(gateway, writer, shop):
    with session(writer) as connection:
        connection.send(wire.query(NOTES))
        connection.receive_until("G")
        before = peak_bytes(gateway)
        connection.send(copy_data(b"1\t" + b"x" * FRAME_BYTES + b"\n") + COPY_DONE)
        assert tags_of(connection.receive_until("Z")) == ["C", "Z"]
        assert peak_bytes(gateway) - before < 8 * 1024 * 1024
    assert admin(shop, "SELECT id, length(body) FROM notes") == [(1, FRAME_BYTES)]


def peak_bytes(gateway):
    """The most memory the gateway ever held."""
    status = open(f"/proc/{gateway.process.pid}/status", encoding="ascii").read()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_rows_and_bytes_stand_on_record(gateway, writer):
    with session(writer) as connection:
        data = [copy_data(f"{number}\tnote\n") for number in range(100, 110)]
        connection.cycle(wire.query(NOTES), *data, COPY_DONE)
        connection.cycle(wire.query("COPY (SELECT id FROM notes) TO STDOUT CSV HEADER"))
        connection.cycle(wire.query(NOTES), copy_data("x\n"), COPY_DONE)
    this = of_type(lines(gateway), "session.start")[-1]["session"]
    outcomes = lambda: [line for line in of_type(lines(gateway), "statement.outcome") if line["session"] == this]
    wait_until("three outcomes", lambda: len(outcomes()) == 3)
    taken, given, failed = outcomes()
    assert taken["body"]["tag"] == given["body"]["tag"] == "COPY 10"
    assert (taken["body"]["rows"], taken["body"]["bytes"]) == (10, sum(map(len, data)))
    assert given["body"]["rows"] == 10 and given["body"]["bytes"] == 10 * (5 + 4) + 5 + 3
    assert (failed["body"]["sqlstate"], failed["body"]["rows"]) == ("22P02", 0)


# Who may not, or what would take a sealed value along; and for each what passes instead.
REFUSED = {
    "no capability": ("reader", NOTES, "SELECT count(*) FROM notes"),
    # A value that is written as NULL is would be told from the others: a guess at each.
    "a guess as the null string": (
        "writer", "COPY customers (ssn) TO STDOUT (NULL '123-45-6789')", "COPY customers (id) TO STDOUT (NULL 'none')",
    ),
    "a null string that values have": (
        "writer", "COPY customers TO STDOUT (NULL '')", "COPY customers TO STDOUT (FORMAT csv, NULL 'none')",
    ),
    "another encoding": (
        "writer", "COPY customers TO STDOUT (ENCODING 'latin1')", "COPY customers TO STDOUT (ENCODING 'utf8')",
    ),
    "quotes that end a row": (
        "writer", "COPY customers TO STDOUT (FORMAT csv, QUOTE E'\\n')", "COPY customers TO STDOUT (FORMAT csv, QUOTE '$')",
    ),
    "a query computing with one": (
        "writer", "COPY (SELECT substr(ssn, 1, 3) FROM customers) TO STDOUT",
        "COPY (SELECT substr(city, 1, 3) FROM customers) TO STDOUT",
    ),
    "a condition on one": (
        "writer", "COPY (SELECT id FROM customers WHERE ssn LIKE '1%') TO STDOUT",
        "COPY (SELECT id FROM customers WHERE city LIKE '1%') TO STDOUT",
    ),
    "a condition of COPY FROM": (
        "writer", "COPY tags FROM STDIN WHERE id IN (SELECT id FROM customers WHERE ssn LIKE '1%')",
        "COPY (SELECT id FROM tags WHERE id IN (SELECT id FROM customers)) TO STDOUT",
    ),
    "to a file": ("writer", "COPY tags TO '/tmp/exeat-e2e-never'", "COPY tags TO STDOUT"),
    "to a program": ("writer", "COPY tags TO PROGRAM 'cat'", "COPY tags TO STDOUT"),
    "from a program": ("writer", "COPY tags FROM PROGRAM 'id'", "COPY tags TO STDOUT"),
    "what changes data": ("writer", "COPY (DELETE FROM tags RETURNING id) TO STDOUT", "COPY tags TO STDOUT"),
    "behind a harmless one": (
        "writer", "COPY tags TO STDOUT; COPY customers TO STDOUT (NULL '')", "COPY tags TO STDOUT; COPY customers TO STDOUT",
    ),
    "denied": ("writer", "COPY hr.salaries TO STDOUT", "COPY notes TO STDOUT"),
    "passwords, written as a guess": ("writer", "COPY pg_authid TO STDOUT (NULL 'md5')", "COPY pg_namespace TO STDOUT (NULL 'md5')"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_its_twin(name, writer, reader):
    who, refused, twin = REFUSED[name]
    with session({"writer": writer, "reader": reader}[who]) as connection:
        # What a client sends along before it reads the answer is swallowed.
        assert tags_of(connection.cycle(wire.query(refused), copy_data("1\n"), COPY_DONE, wire.query("SELECT 1"))) == ["42501", "Z"]
        assert tags_of(connection.receive_until("Z")) == ["T", "D", "C", "Z"]
        extended = wire.parse(refused) + wire.bind() + wire.execute() + copy_data("1\n") + COPY_DONE + wire.SYNC
        assert tags_of(connection.cycle(extended)) == ["42501", "Z"] or ";" in refused
        assert "E" not in [tag for tag, _ in connection.cycle(wire.query(twin))]


COLUMNS = "id, full_name, email, ssn, phone"
OUT = {
    "a relation": f"COPY customers ({COLUMNS}) TO STDOUT",
    "a query": f"COPY (SELECT {COLUMNS} FROM customers ORDER BY id) TO STDOUT",
}


def masked_rows(connect, dsn):
    return connect(dsn).execute(f"SELECT {COLUMNS} FROM customers ORDER BY id").fetchall()


@pytest.mark.parametrize("what", OUT)
def test_a_copy_out_is_masked_as_a_select_is(what, connect, writer):
    expected = masked_rows(connect, writer)
    assert {row[3] for row in expected} == {"[redacted by exeat]"} and {row[4] for row in expected} == {None}
    with connect(writer).cursor() as cursor:
        for form in ("text", "binary"):
            with cursor.copy(f"{OUT[what]} (FORMAT {form})") as copy:
                copy.set_types(["int4", "text", "text", "text", "text"])
                assert sorted(copy.rows()) == expected


@pytest.mark.parametrize("options, delimiter, quote, null", [
    ("FORMAT csv, HEADER", ",", "", ""),
    (r"FORMAT csv, HEADER, DELIMITER ';', QUOTE '$', ESCAPE '\', FORCE_QUOTE *, NULL 'none'", ";", "$", "none"),
    ("FORMAT text, HEADER, DELIMITER '|'", "|", "", r"\N"),
])
def test_lines_are_masked_in_every_layout(options, delimiter, quote, null, connect, writer):
    expected = masked_rows(connect, writer)
    with connect(writer).cursor() as cursor, cursor.copy(f"{OUT['a query']} ({options})") as copy:
        lines = b"".join(copy).decode().splitlines()
    assert lines[0] == COLUMNS.replace(", ", delimiter)
    told = [[null if cell is None else f"{quote}{cell}{quote}" for cell in row] for row in expected]
    assert lines[1:] == [delimiter.join(cells) for cells in told]


def test_psql_saves_masked_rows(writer, connect, tmp_path):
    saved = tmp_path / "customers.csv"
    done = subprocess.run(
        [psql_command(), "-X", "-c", f"\\copy customers ({COLUMNS}) to '{saved}' csv"], env=writer.environment(),
        capture_output=True, text=True, check=False, timeout=60,
    )
    rows = masked_rows(connect, writer)
    assert done.stdout.strip() == f"COPY {len(rows)}", done.stderr
    assert saved.read_text().count("[redacted by exeat]") == 2 * len(rows)


def test_a_long_row_with_a_sealed_cell_is_copied_in_little_memory(gateway, connect, writer, shop):
    """Masked cells are dropped as they come, others pass as they come; what waits for a mask is bounded."""
    long = "repeat('x', 48 << 20)"
    before = admin(shop, "SELECT full_name, ssn FROM customers WHERE id = 1")[0]
    admin(shop, f"UPDATE customers SET full_name = {long}, ssn = {long} WHERE id = 1")
    try:
        with connect(writer).cursor() as cursor:
            peak = peak_bytes(gateway)
            for columns in ("full_name, ssn", "ssn, full_name"):
                for form in ("text", "csv", "binary"):
                    with cursor.copy(f"COPY (SELECT {columns} FROM customers WHERE id = 1) TO STDOUT (FORMAT {form})") as copy:
                        blocks = [bytes(block) for block in copy]
                    size = sum(len(block) for block in blocks)
                    assert 48 << 20 < size < (48 << 20) + 100, (columns, form)
                    assert b"[redacted by exeat]" in b"".join(blocks)
            assert peak_bytes(gateway) - peak < 32 << 20
    finally:
        admin(shop, f"UPDATE customers SET full_name = '{before[0]}', ssn = '{before[1]}' WHERE id = 1")


SECRET = "123-45-6789"


@pytest.fixture
def traps(shop):
    """Tables whose own code knows a secret: triggers, defaults, checks."""
    admin(shop, f"""
        CREATE SCHEMA traps;
        CREATE TABLE traps.vault (id integer PRIMARY KEY, ssn text);
        INSERT INTO traps.vault VALUES (1, '{SECRET}');
        CREATE FUNCTION traps.tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
        DECLARE found text;
        BEGIN
            SELECT ssn INTO found FROM traps.vault;
            RAISE NOTICE 'notice %', found;
            PERFORM pg_notify('leak', found);
            PERFORM set_config('application_name', found, false);
            IF NEW.id = 13 THEN RAISE EXCEPTION 'error %', found USING DETAIL = found, HINT = found, ERRCODE = 'S3CRT'; END IF;
            NEW.note := found;
            RETURN NEW;
        END $$;
        CREATE TABLE traps.told (id integer, note text);
        CREATE TRIGGER tell BEFORE INSERT ON traps.told FOR EACH ROW EXECUTE FUNCTION traps.tell();
        CREATE FUNCTION traps.recall() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT ssn FROM traps.vault';
        CREATE TABLE traps.filled (id integer, note text DEFAULT traps.recall(), CHECK (id < 100 OR note = ''));
        CREATE TABLE traps.child (id integer REFERENCES traps.vault (id));
        CREATE VIEW traps.seen AS SELECT * FROM traps.vault;
        GRANT USAGE ON SCHEMA traps TO shop_reader;
        GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA traps TO shop_reader;
    """)
    yield
    admin(shop, "DROP SCHEMA traps CASCADE")


TRAP_LABELS = "traps.vault.ssn"
TRAPS = [
    # Errors and notices of a trigger, its code and fields, what it notifies and sets.
    ("COPY traps.told (id) FROM STDIN", "1\n"),
    ("COPY traps.told (id) FROM STDIN", "13\n"),
    # The failing row of a check quotes the default's value; so does a context line.
    ("COPY traps.filled (id) FROM STDIN", "200\n"),
    ("COPY traps.filled (id) FROM STDIN", "x\n"),
    ("COPY traps.filled (id) FROM STDIN WHERE note LIKE '123%'", "1\n"),
    ("COPY traps.vault FROM STDIN", "1\tguess\n"),
    ("COPY traps.seen TO STDOUT", ""),
    ("COPY (SELECT * FROM traps.seen) TO STDOUT", ""),
    ("COPY (SELECT ssn FROM traps.seen WHERE id = 1) TO STDOUT", ""),
    ("COPY (SELECT traps.recall()) TO STDOUT", ""),
    ("COPY (SELECT query_to_xml('SELECT * FROM traps.vault', true, true, '')) TO STDOUT", ""),
    ("COPY (TABLE traps.vault) TO STDOUT", ""),
    ("COPY (WITH v AS (SELECT ssn AS id FROM traps.vault) SELECT id FROM v) TO STDOUT", ""),
    ("COPY (SELECT id FROM traps.vault ORDER BY ssn) TO STDOUT", ""),
    ("COPY (SELECT 1 WHERE EXISTS (SELECT FROM traps.vault WHERE ssn LIKE '123%')) TO STDOUT", ""),
    ("COPY (INSERT INTO traps.told VALUES (1) RETURNING note) TO STDOUT", ""),
    ("COPY (SELECT 1) TO STDOUT; COPY traps.told (id) FROM STDIN", "13\n"),
]


@pytest.fixture(scope="module")
def guarded(fresh_gateway, trust):
    """A gateway that seals the vault of the traps."""
    text = writers_policy().replace("public.customers.ssn", "*.*.ssn")
    gateway = fresh_gateway("guarded", policy=text).trust(trust.entry()).start(level="debug")
    yield gateway.dsn(trust.token("wendy", ["writers"]))
    gateway.stop()


@pytest.mark.parametrize("sql, data", TRAPS)
@pytest.mark.parametrize("extended", [False, True])
def test_no_copy_brings_the_secret_out(sql, data, extended, traps, guarded):
    """Whatever comes back, on this statement or after it, to the last byte: not the secret."""
    with session(guarded) as connection:
        seen = connection.cycle(wire.query("LISTEN leak"))
        begin = wire.parse(sql) + wire.bind() + wire.execute() if extended else wire.query(sql)
        seen += connection.cycle(begin, copy_data(data), COPY_DONE, wire.SYNC if extended else b"")
        for after in ("SELECT 1", "COMMIT", "SELECT id FROM traps.told", "SELECT id FROM traps.filled"):
            seen += connection.cycle(wire.query(after))
    heard = b"".join(body for _, body in seen)
    assert SECRET.encode() not in heard and b"S3CRT" not in heard and b"123-45" not in heard
