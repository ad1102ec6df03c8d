"""Holds as real clients meet them: each waits in its own way of reading, gets all of it after a yes and one clean error
after a no, and goes on with the same connection."""

import asyncio
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import asyncpg
import psycopg
import pytest

from lib.dsn import psql_command
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin
from test_approvals_of_statements import Held
from test_holds import HOLD, POLICY, SCHEMA

SQL = "SELECT id, name FROM held.people"
AFTER = "SELECT count(*) FROM held.notes"
JDBC = Path("/usr/share/java/postgresql.jar")
READER = Path(__file__).with_name("HeldReader.java")
# Less than the hold lasts, and than the threshold is away.
SOCKET_SECONDS, HELD_SECONDS, FETCHED = 3, 8, 50


@pytest.fixture(scope="module")
def held(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    rules = [POLICY["rules"][0], {**POLICY["rules"][1], "hold": {**HOLD, "wait": "60s", "expires": "5m"}}]
    made = fresh_gateway("clients-held", policy=dump({**POLICY, "rules": rules})).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"]}}
    made.start(level="debug")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


# Each reads the statement and returns how many rows came, how it ended, and what the connection reads after.


def with_psycopg(read, autocommit=True):
    def run(dsn):
        with psycopg.connect(dsn.text(), autocommit=autocommit) as connection:
            rows, ended = [], "ok"
            try:
                read(connection, rows)
            except psycopg.Error as error:
                ended = error.sqlstate
            if not autocommit:
                connection.rollback()
            return len(rows), ended, connection.execute(AFTER).fetchone()[0]

    return run


def extended(connection, rows):
    rows += connection.execute(f"{SQL} WHERE id > %s", [0], prepare=True).fetchall()


def server_cursor(connection, rows):
    with connection.cursor("held_cursor") as cursor:
        cursor.itersize = FETCHED
        cursor.execute(SQL)
        # Row by row: those that came before an error have come.
        for row in cursor:
            rows.append(row)  # noqa: PERF402


def pipelined(connection, rows):
    with connection.pipeline():
        cursors = [connection.execute(sql) for sql in ("SELECT 1", SQL, "SELECT 2")]
        rows += cursors[1].fetchall()
        assert [cursors[0].fetchone(), cursors[2].fetchone()] == [(1,), (2,)]


def with_asyncpg(read, in_block=False):
    async def session(dsn):
        connection = await asyncpg.connect(
            host=dsn.host, port=dsn.port, user=dsn.user, password=dsn.password, database=dsn.dbname, ssl=False
        )
        try:
            rows, ended = [], "ok"
            try:
                if in_block:
                    async with connection.transaction():
                        await read(connection, rows)
                else:
                    await read(connection, rows)
            except asyncpg.PostgresError as error:
                ended = error.sqlstate
            return len(rows), ended, await connection.fetchval(AFTER)
        finally:
            await connection.close()

    return lambda dsn: asyncio.run(session(dsn))


async def fetched(connection, rows):
    rows += await connection.fetch(SQL)


async def prefetched(connection, rows):
    async for row in connection.cursor(SQL, prefetch=FETCHED):
        rows.append(row)  # noqa: PERF401


async def stepped(connection, rows):
    cursor = await connection.cursor(SQL)
    while more := await cursor.fetch(FETCHED - 10):
        rows += more


def with_psql(dsn):
    done = subprocess.run(psql_words(SQL), env=dsn.environment(), capture_output=True, text=True, timeout=90, check=False)
    rows, after = done.stdout.split("after\n")
    return len(rows.splitlines()), done.stderr.split()[1].rstrip(":") if "ERROR" in done.stderr else "ok", int(after)


def psql_words(sql):
    quiet = ["-X", "-q", "-A", "-t", "-v", "VERBOSITY=verbose", "-v", "SHOW_CONTEXT=never"]
    steps = ["SET client_min_messages = error", sql, r"\echo after", AFTER]
    return [psql_command(), *quiet, *(word for step in steps for word in ("-c", step))]


def with_jdbc(fetch_size):
    def run(dsn):
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", str(JDBC), str(READER), SQL, str(SOCKET_SECONDS), str(fetch_size)]
        done = subprocess.run(command, env=dsn.environment(), capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        rows, ended, after = done.stdout.split()
        return int(rows), ended, int(after)

    return run


CLIENTS = {
    "psql": with_psql,
    "psycopg, simple": with_psycopg(lambda connection, rows: rows.extend(connection.execute(SQL).fetchall())),
    "psycopg, in a block": with_psycopg(lambda connection, rows: rows.extend(connection.execute(SQL).fetchall()), autocommit=False),
    "psycopg, extended": with_psycopg(extended),
    "psycopg, server cursor": with_psycopg(server_cursor, autocommit=False),
    "psycopg, pipeline": with_psycopg(pipelined),
    "asyncpg": with_asyncpg(fetched),
    "asyncpg, prefetch": with_asyncpg(prefetched, in_block=True),
    "asyncpg, cursor": with_asyncpg(stepped, in_block=True),
    "pgjdbc": with_jdbc(0),
    "pgjdbc, fetchSize": with_jdbc(FETCHED),
}
# These have rows from fetches before the one that passes the threshold.
STEPWISE = {"psycopg, server cursor": 100, "asyncpg, prefetch": 100, "asyncpg, cursor": 80, "pgjdbc, fetchSize": 100}


class Reading(threading.Thread):
    """A client at work."""

    def __init__(self, client, dsn):
        super().__init__(daemon=True)
        self.client, self.dsn, self.outcome = client, dsn, None
        self.start()

    def run(self):
        try:
            self.outcome = CLIENTS[self.client](self.dsn)
        except BaseException as error:  # noqa: BLE001 - raised where the test is
            self.outcome = error

    def ended(self):
        self.join(20)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def runnable(client):
    if client.startswith("pgjdbc") and (not JDBC.exists() or shutil.which("java") is None):
        pytest.skip("needs java and libpostgresql-jdbc-java")


@pytest.mark.parametrize("client", CLIENTS)
def test_after_a_yes_everything_arrives(held, client):
    runnable(client)
    name, dsn = held.agent()
    started = time.monotonic()
    reading = Reading(client, dsn)
    approval = held.waiting(name)
    if client == "pgjdbc":
        wait_until("the hold outlasts the client's socketTimeout", lambda: time.monotonic() - started > HELD_SECONDS)
    assert reading.outcome is None and held.command("show", approval)[1]["state"] == "pending"
    status, card = held.command("approve", approval)
    assert status == 0, card
    assert reading.ended() == (500, "ok", 500)


@pytest.mark.parametrize("client", CLIENTS)
def test_after_a_no_there_is_one_error_and_the_connection_goes_on(held, client):
    runnable(client)
    name, dsn = held.agent()
    reading = Reading(client, dsn)
    approval = held.waiting(name)
    assert held.command("deny", approval, "--reason", "not today")[0] == 0
    assert reading.ended() == (STEPWISE.get(client, 0), "42501", 500)


def test_ctrl_c_in_psql_withdraws(held):
    name, dsn = held.agent()
    process = subprocess.Popen(
        psql_words(SQL), env=dsn.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    approval = held.waiting(name)
    os.kill(process.pid, signal.SIGINT)
    said, errors = process.communicate(timeout=30)
    assert "57014" in errors and "name " not in said, (said, errors)
    wait_until("the request is withdrawn", lambda: held.command("show", approval)[1]["state"] == "withdrawn", seconds=10)
