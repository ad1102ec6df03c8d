"""Many requests at one gateway, all of them of statements that wait with rows kept: each costs what is kept and no more than its
limits say, each is answered as a human decided, and what they took is given back. EXEAT_PENDING says how many (1000 without it, as many as
may be open)."""

import collections
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib import wire
from lib.dsn import psql
from lib.gateway import Gateway
from lib.postgres import Server
from lib.run import wait_until
from lib.yaml_text import dump
from streams import session, tags_of

# No more requests than this may be open, whoever asks; of one asker a tenth of them.
PENDING = int(os.environ.get("EXEAT_PENDING", "1000"))
ASKERS = 20
KIB, MIB = 1024, 1024 * 1024
# What a statement may keep here, and what any may; how large a card may be. A buffer that grows is twice its content at most.
KEPT, KEPT_MAX, CARD_MAX, GROWTH = 100 * KIB, 4 * MIB, 64 * KIB, 2
LARGE = 16
ROW, ROWS, LARGE_ROWS = 1000, 120, 9000
SECONDS_MAX = 120
UNSERVED = "58030"
# A busy gateway may say that it cannot look at the store now; whoever asks again is where it was.
ATTEMPTS = 20

SCHEMA = f"""
CREATE ROLE many_reader LOGIN;
CREATE SCHEMA many;
CREATE TABLE many.rows (id integer PRIMARY KEY, body text NOT NULL);
ALTER TABLE many.rows ALTER body SET STORAGE PLAIN;
INSERT INTO many.rows SELECT i, repeat('x', {ROW}) FROM generate_series(1, {ROWS}) i;
CREATE TABLE many.large AS SELECT i AS id, repeat('x', {ROW}) AS body FROM generate_series(1, {LARGE_ROWS}) i;
CREATE TABLE many.free (id integer);
GRANT USAGE ON SCHEMA many TO many_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA many TO many_reader;
"""


def hold(name, kept):
    return {
        "id": name, "who": {"groups": ["agents"]}, "target": "shop", "relations": [f"many.{name}"],
        "hold": {"bytes": f"{kept}B", "approvers": {"groups": ["dpo"]}, "wait": "10m", "expires": "15m"},
    }


POLICY = dump({
    "version": 1,
    "labels": {"shop": {"body": ["many.rows.body", "many.large.body"]}},
    "rules": [
        {"id": "all", "who": {"groups": ["agents", "dpo"]}, "target": "shop", "allow": ["read"]},
        hold("rows", KEPT), hold("large", 1024 * MIB),
    ],
})


class Asking:
    """One connection and the one statement that it has sent."""

    def __init__(self, dsn, sql):
        self.sql, self.connection = sql, session(dsn)
        self.connection.socket.settimeout(SECONDS_MAX)
        assert tags_of(self.connection.cycle(wire.query("SELECT id FROM many.free"))) == ["T", "C", "Z"]

    def send(self):
        self.connection.send(wire.query(self.sql))

    def request(self):
        """Whoever waits hears which request it waits for."""
        for _ in range(ATTEMPTS):
            heard = [self.connection.receive()]
            while heard[-1][0] not in "NZ":
                heard.append(self.connection.receive())
            if heard[-1][0] == "N":
                assert not {"D", "C", "E"} & set(tags_of(heard)), heard
                return re.search(rb"apr_\w+", heard[-1][1]).group().decode()
            assert UNSERVED in tags_of(heard), heard
            self.send()
        raise AssertionError("refused again and again")

    def answer(self):
        for _ in range(ATTEMPTS):
            tags = [tag for tag in tags_of(self.connection.receive_until("Z")) if tag not in "TNS"]
            if UNSERVED not in tags:
                return tuple(sorted(collections.Counter(tags).items()))
            self.send()
        raise AssertionError("refused again and again")


class Many:
    def __init__(self, gateway, trust):
        self.gateway, self.trust = gateway, trust
        self.askers = [gateway.dsn(trust.token(f"asker-{number}", ["agents"])) for number in range(ASKERS)]
        self.pool = ThreadPoolExecutor(8)

    def memory(self):
        status = Path(f"/proc/{self.gateway.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) * KIB

    def asking(self, count, relation):
        """Each with a text of its own: the same one asks for the same."""
        sql = f"SELECT id, body FROM many.{relation} WHERE id <> -{{}}"
        return list(self.pool.map(lambda number: Asking(self.askers[number % ASKERS], sql.format(number)), range(count)))

    def all(self, does, what):
        return list(self.pool.map(does, what))

    def post(self, path, body, who):
        status, answer = self.gateway.ask("POST", f"/v1/approvals/{path}", body, self.trust.token(*who))
        assert status == 200, answer
        return answer


@pytest.fixture(scope="module")
def many(run, program, trust):
    server = Server(run, title="many", settings={"max_connections": str(PENDING + 50), "shared_buffers": "64MB"})
    database = server.create_database("many")
    psql(database, SCHEMA)
    login = {"user": "many_reader", "password": server.set_password("many_reader")}
    gateway = Gateway(run, "many-pending").policy(POLICY).trust(trust.entry())
    gateway.config["console"] = {"roles": {"viewer": ["dpo"], "admin": ["ops"]}}
    limits = {"connections": PENDING + 50, "per_source": PENDING + 50, "failed_logins": "1000/min"}
    gateway.config["listen"]["postgres"]["limits"] = limits
    gateway.target(server, "many", [login], unclassified="allow", held_max=PENDING)
    with pytest.MonkeyPatch.context() as patch:
        # glibc's allocator gives back at once what is as large as what is kept, so that what is looked at is the gateway.
        patch.setenv("MALLOC_MMAP_THRESHOLD_", str(64 * KIB))
        gateway.start(level="warn")
    yield Many(gateway, trust)
    gateway.stop()
    server.stop()


def test_many_wait_in_bounded_memory_and_each_is_answered(many):
    all_asking = many.asking(PENDING, "rows")
    before = many.memory()
    for asking in all_asking:
        asking.send()
    requests = many.all(Asking.request, all_asking)
    assert len(set(requests)) == PENDING
    pending = many.memory() - before
    print(f"{PENDING} sessions: {before // KIB} KiB; pending: {pending // KIB} KiB more, {pending // PENDING // KIB} KiB each")
    # Less would say that nothing was kept.
    assert PENDING * KEPT // 2 < pending <= PENDING * (GROWTH * KEPT + CARD_MAX)

    if PENDING == 1000:
        with session(many.askers[0]) as connection:
            heard = connection.cycle(wire.query("SELECT id, body FROM many.rows"))
            [error] = [wire.error_fields(body) for tag, body in heard if tag == "E"]
            assert "1000" in error["M"] and "D" not in tags_of(heard), error

    officer = ("officer", ["dpo"])
    many.all(lambda id_: many.post(f"{id_}/approve", {}, officer), requests[::20])
    many.all(lambda id_: many.post(f"{id_}/deny", {"reason": "not so many"}, officer), requests[1::20])
    for number in range(ASKERS):
        many.post("withdraw", {"principal": f"asker-{number}"}, ("operator", ["ops"]))
    answers = many.all(Asking.answer, all_asking)
    assert set(answers[::20]) == {(("C", 1), ("D", ROWS), ("Z", 1))}
    refused = {answer for number, answer in enumerate(answers) if number % 20}
    assert refused == {(("42501", 1), ("Z", 1))}

    for asking in all_asking:
        asking.connection.__exit__()
    wait_until("what they took is given back", lambda: many.memory() - before < pending // 3, seconds=20)
    print(f"afterwards {many.memory() // KIB} KiB, answers {collections.Counter(answers)}")


def test_one_that_is_larger_keeps_what_any_may_keep_and_no_more(many):
    asking = many.asking(LARGE, "large")
    before = many.memory()
    for one in asking:
        one.send()
    many.all(Asking.request, asking)
    grown = many.memory() - before
    print(f"{LARGE} of {LARGE_ROWS * ROW // KIB} KiB: {grown // LARGE // KIB} KiB each")
    assert LARGE * KEPT_MAX // 2 < grown <= LARGE * (GROWTH * KEPT_MAX + CARD_MAX)
    for one in asking:
        one.connection.__exit__()
    wait_until("what they took is given back", lambda: many.memory() - before < grown // 3, seconds=20)
