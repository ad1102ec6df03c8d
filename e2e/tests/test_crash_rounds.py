"""A gateway that is killed at any moment: what a client has seen is on the ledger, what was approved once is used once, and the
next gateway answers. EXEAT_CRASH_ROUNDS says how often (200 in a long run); EXEAT_CRASH_SEED repeats one."""

import json
import os
import random
import signal
import threading

import psycopg
import pytest

from lib.yaml_text import dump
from streams import admin
from test_approvals_of_statements import Held
from test_holds import HOLD, POLICY, SCHEMA

ROUNDS = int(os.environ.get("EXEAT_CRASH_ROUNDS", "5"))
SEED = int(os.environ.get("EXEAT_CRASH_SEED", str(random.randrange(1 << 31))))
ALLOWED = 100
# A gateway is killed within this much of a client's first statement, or of the one that collects.
KILLED_WITHIN_SECONDS = 0.08
WHOLE = "SELECT id, name FROM held.people"


@pytest.fixture(scope="module")
def held(fresh_gateway, shop, trust):
    admin(shop, SCHEMA)
    rules = [POLICY["rules"][0], {**POLICY["rules"][1], "hold": {**HOLD, "rows": ALLOWED, "mode": "async", "expires": "5m"}}]
    made = fresh_gateway("crashing", policy=dump({**POLICY, "rules": rules})).trust(trust.entry())
    made.config["console"] = {"roles": {"viewer": ["dpo"]}}
    made.start(level="warn")
    yield Held(made, trust)
    made.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


class Client(threading.Thread):
    """Says one statement after the other until the gateway is gone or says no."""

    def __init__(self, dsn, statements):
        super().__init__(daemon=True)
        self.dsn, self.statements, self.rows, self.said = dsn, statements, 0, None
        self.began = threading.Event()

    def run(self):
        try:
            with self.connect() as connection, connection.cursor() as cursor:
                for sql in self.statements:
                    self.began.set()
                    self.read(cursor, sql)
        except psycopg.Error as error:
            self.said = error.sqlstate or type(error).__name__
        finally:
            self.began.set()

    def connect(self):
        return psycopg.connect(self.dsn.text(), autocommit=True)

    def read(self, cursor, sql):
        # Row by row, so that what came before the end of the connection counts.
        for _ in cursor.stream(sql):
            self.rows += 1


def killed(held, chance, client):
    """Kills the gateway somewhere in what the client does, and starts the next."""
    client.start()
    client.began.wait(20)
    client.join(chance.uniform(0, KILLED_WITHIN_SECONDS))
    gateway = held.gateway
    gateway.process.send_signal(signal.SIGKILL)
    gateway.process.wait(10)
    gateway.run.forget(gateway.process)
    client.join(20)
    assert not client.is_alive(), "a client hangs on a gateway that is gone"
    gateway.start(level="warn")


def small(chance):
    """Pieces of the table, of up to fifteen rows."""
    while True:
        low = chance.randrange(0, 480)
        yield f"SELECT id, name FROM held.people WHERE id > {low} AND id <= {low + chance.randrange(1, 16)}"


def test_what_was_seen_is_counted_and_an_approval_is_used_once(held):
    print(f"EXEAT_CRASH_SEED={SEED} EXEAT_CRASH_ROUNDS={ROUNDS}")
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        name, dsn = held.agent()
        seen = 0
        for _ in range(2):
            client = Client(dsn, small(chance))
            killed(held, chance, client)
            seen += client.rows
        last = Client(dsn, small(chance))
        last.run()
        seen += last.rows
        assert last.said == "YG001", f"round {number}: {last.said}"
        assert seen <= ALLOWED, f"round {number}: {seen} rows"

        name, dsn = held.agent()
        with psycopg.connect(dsn.text(), autocommit=True) as connection, pytest.raises(psycopg.Error) as pending:
            connection.execute(WHOLE)
        approval = json.loads(pending.value.diag.message_detail)["retry"]["approval"]
        status, printed = held.command("approve", approval)
        assert status == 0, printed
        collecting = Client(dsn, [WHOLE])
        killed(held, chance, collecting)
        again = Client(dsn, [WHOLE, WHOLE])
        again.run()
        assert again.said == "YG001" and min(collecting.rows, again.rows) == 0, f"round {number}"
        assert again.rows in (0, 500)
