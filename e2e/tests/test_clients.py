"""What real clients see: psql, psycopg in text and binary, asyncpg, over TLS on both sides."""

import asyncio

import asyncpg
import psycopg
import pytest
from psycopg.rows import dict_row

from lib.dsn import psql
from spine import AGENT_MASKS, REDACTED, assert_agent_customer, assert_masked

COLUMNS = "id, full_name, email, ssn, phone, birth_date, city, created_at"
SHAPES = [
    f"SELECT {COLUMNS} FROM customers",
    "SELECT * FROM customers",
    "SELECT c.* FROM public.customers AS c",
    f"SELECT {COLUMNS} FROM (SELECT * FROM customers) AS inner_one",
    f"WITH everybody AS (SELECT * FROM customers) SELECT {COLUMNS} FROM everybody",
    "SELECT c.*, o.item FROM orders o JOIN customers c ON c.id = o.customer_id",
]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
@pytest.mark.parametrize("prepare", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("sql", SHAPES)
def test_an_agent_sees_every_row_with_sealed_columns_masked(connect, agent, truth, sql, prepare, binary):
    cursor = connect(agent, row_factory=dict_row).cursor(binary=binary)
    rows = cursor.execute(sql, prepare=prepare or None).fetchall()
    assert len(rows) >= len(truth["customers"])
    for row in rows:
        row.pop("item", None)
        assert_agent_customer(row, truth["customers"][row["id"]])


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_the_officer_sees_the_rows_as_they_are(connect, officer, truth, binary):
    cursor = connect(officer, row_factory=dict_row).cursor(binary=binary)
    rows = cursor.execute(SHAPES[0], prepare=True).fetchall()
    assert {row["id"]: row for row in rows} == truth["customers"]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_parameters_and_aliases_keep_the_mask(connect, agent, truth, binary):
    cursor = connect(agent).cursor(binary=binary)
    row = cursor.execute("SELECT ssn AS harmless, id FROM customers WHERE id = %s", (7,)).fetchone()
    assert row[1] == 7
    assert_masked(row[0], truth["customers"][7]["ssn"], AGENT_MASKS["ssn"])


def test_cards_are_masked_and_amounts_are_not(connect, agent, truth):
    for card, amount, number in connect(agent).execute("SELECT card_number, amount, id FROM payments"):
        assert_masked(card, truth["payments"][number]["card_number"], AGENT_MASKS["card"])
        assert amount == truth["payments"][number]["amount"]


def test_a_masked_column_keeps_its_name_and_type(connect, agent, shop):
    def description(dsn):
        return [(c.name, c.type_code) for c in connect(dsn).execute("SELECT * FROM customers LIMIT 1").description]

    assert description(agent) == description(shop.reader)


def test_a_server_side_portal_in_pieces_stays_masked(connect, agent, truth):
    """psycopg's `stream` reads row by row from one Execute; the mask is on every piece."""
    cursor = connect(agent, row_factory=dict_row).cursor()
    seen = 0
    for row in cursor.stream("SELECT * FROM customers WHERE id <= %s", (50,)):
        assert_agent_customer(row, truth["customers"][row["id"]])
        seen += 1
    assert seen == 50


def test_psql_shows_the_masked_row(agent):
    done = psql(agent, "SELECT id, email, birth_date FROM customers WHERE id = 1")
    assert done.stdout.strip() == f"1|{REDACTED}|"


@pytest.mark.parametrize("command", [r"\dt", r"\d customers", r"\dn", r"\l", r"\du", r"\d+ orders", r"\di", r"\df pg_catalog.now", r"\dT integer"])
def test_psql_describes_objects_as_it_does_directly(agent, shop, command):
    # An old psql asks a new server for columns that are gone: then the errors are the same.
    through, direct = (psql(dsn, command, check=False) for dsn in (agent, shop.reader))
    assert (through.stdout, through.stderr, through.returncode) == (direct.stdout, direct.stderr, direct.returncode)
    assert through.stdout or through.stderr


def test_psql_runs_a_script_of_several_statements(agent, run):
    script = run.secret_file("script.sql", "BEGIN;\nSELECT 1;\n\\echo between\nSELECT count(*) FROM orders;\nCOMMIT;\n")
    assert psql(agent, file=script).stdout.split() == ["1", "between", "1500"]


async def _asyncpg(dsn, action, tls=True):
    connection = await asyncpg.connect(
        host=dsn.host, port=dsn.port, user=dsn.user, password=dsn.password, database=dsn.dbname, timeout=20,
        ssl=_context(dsn) if tls else False,
    )
    try:
        return await action(connection)
    finally:
        await connection.close()


def _context(dsn):
    import ssl

    return ssl.create_default_context(cafile=dsn.sslrootcert)


def test_asyncpg_runs_one_statement_twice_without_describing_it_again(agent, truth):
    """The second run is Bind and Execute alone: asyncpg has the row description from its cache, in binary."""

    async def action(connection):
        return [await connection.fetch("SELECT * FROM customers WHERE id = $1", number) for number in (3, 3, 4)]

    for rows, number in zip(asyncio.run(_asyncpg(agent, action)), (3, 3, 4), strict=True):
        assert len(rows) == 1
        assert_agent_customer(dict(rows[0]), truth["customers"][number])


def test_asyncpg_prepared_statement_stays_masked(agent, truth):
    async def action(connection):
        statement = await connection.prepare("SELECT id, ssn, birth_date FROM customers ORDER BY id")
        return [await statement.fetch() for _ in range(3)]

    for rows in asyncio.run(_asyncpg(agent, action)):
        assert len(rows) == 500
        for row in rows:
            assert row["birth_date"] is None
            assert_masked(row["ssn"], truth["customers"][row["id"]]["ssn"], AGENT_MASKS["ssn"])


def test_asyncpg_transactions_and_cursor_portals(agent, truth):
    """asyncpg's cursor is a named portal fetched in pieces (PortalSuspended) inside a transaction."""

    async def action(connection):
        async with connection.transaction():
            return [row async for row in connection.cursor("SELECT * FROM customers ORDER BY id", prefetch=7)]

    rows = asyncio.run(_asyncpg(agent, action))
    assert len(rows) == 500
    for row in rows:
        assert_agent_customer(dict(row), truth["customers"][row["id"]])


def test_asyncpg_pool_resets_a_session_between_uses(agent):
    async def work():
        pool = await asyncpg.create_pool(
            host=agent.host, port=agent.port, user=agent.user, password=agent.password, database=agent.dbname,
            ssl=_context(agent), min_size=1, max_size=1, timeout=20,
        )
        async with pool:
            for _ in range(3):
                async with pool.acquire() as connection:
                    assert await connection.fetchval("SELECT 1") == 1

    asyncio.run(work())


def test_errors_of_the_server_are_the_servers_own(connect, agent, shop):
    """What touches nothing sealed answers as PostgreSQL does: code, message and position."""
    for sql in ["SELEC 1", "SELECT nope FROM orders", "SELECT * FROM nope", "SELECT 1/0", "SELECT 1 +"]:
        answers = []
        for dsn in (agent, shop.reader):
            with pytest.raises(psycopg.Error) as caught:
                connect(dsn).execute(sql)
            diag = caught.value.diag
            answers.append((diag.sqlstate, diag.message_primary, diag.statement_position))
        assert answers[0] == answers[1], sql


def test_settings_of_a_session_are_its_own(connect, agent):
    first, second = connect(agent), connect(agent)
    first.execute("SET TimeZone = 'Asia/Tokyo'")
    assert first.execute("SHOW TimeZone").fetchone() == ("Asia/Tokyo",)
    assert second.execute("SHOW TimeZone").fetchone() == ("UTC",)
