"""A state store whose server is killed at any moment, under two gateways that live on: what a client has seen is on the ledger,
no limit is passed, what was approved once is used once, who cannot be served is told so, and with the store the service is
back. Rounds and seed are those of test_crash_rounds.py."""

import collections
import itertools
import random
import threading

import psycopg
import pytest

from lib.postgres import Server
from lib.run import wait_until
from lib.yaml_text import dump
from streams import admin
from test_approvals_of_statements import Held
from test_crash_rounds import ROUNDS, SEED, WHOLE, Client
from test_holds import HOLD, POLICY, SCHEMA
from test_shared_store import url

LIMIT = 1000
# The store is killed within this much of the moment when everybody begins: as long as they take where nobody kills it.
KILLED_WITHIN_SECONDS = 0.25
HEARD_SECONDS_MAX = 60
# Nobody gets more at once than an eighth of what is left.
CHUNK_MAX = LIMIT // 8
# What lies at its gateway for the next statement or is on its way back, and what was reserved without hearing of it.
CHUNKS_LOST_MAX = 2
UNSERVED = "58030"
# So often in a row: a gateway keeps eight connections to its store, and each may be found dead.
UNSERVED_MAX = 16

RULES = [
    POLICY["rules"][0],
    {"id": "waits", "who": {"groups": ["agents"]}, "target": "shop", "hold": {**HOLD, "wait": "120s", "expires": "5m"}},
    {"id": "collects", "who": {"groups": ["robots"]}, "target": "shop", "hold": {**HOLD, "mode": "async", "expires": "5m"}},
    {"id": "all-too", "who": {"groups": ["robots"]}, "target": "shop", "allow": ["read"]},
    {"id": "few", "who": {"groups": ["agents"]}, "target": "shop", "relations": ["held.notes"],
     "limit": {"rows": LIMIT, "window": "1h"}},
]


class Place(Held):
    """One of the gateways, spoken to without a process for every word."""

    def ask(self, method, path, body=None, who=("officer", ["dpo"])):
        return self.gateway.ask(method, f"/v1/{path}", body, self.trust.token(*who))

    def told(self, method, path, body=None, who=("officer", ["dpo"])):
        """The answer, from a store that is back."""
        for _ in range(UNSERVED_MAX):
            status, answer = self.ask(method, path, body, who)
            if status != 503:
                break
        assert status == 200, answer
        return answer

    def waiting(self, name):
        found = []

        def listed():
            found[:] = self.told("GET", f"approvals?state=open&principal={name}")["approvals"]
            return bool(found)

        wait_until(f"{name} waits for a human", listed, seconds=HEARD_SECONDS_MAX)
        return found[0]["id"]

    def state(self, approval):
        return self.told("GET", f"approvals/{approval}")["state"]

    def used(self, name):
        answer = self.told("POST", "limits/show", {"principal": name}, who=("admin", ["ops"]))
        return sum(limit["used"] for limit in answer["limits"] if limit["relation"] == "held.notes")

    def as_agent(self, name, group="agents"):
        return self.gateway.dsn(self.trust.token(name, [group]))


class LoggedIn(Client):
    """Before anything happens: a login reads the store too."""

    def __init__(self, dsn, statements):
        super().__init__(dsn, statements)
        for left in reversed(range(UNSERVED_MAX)):
            try:
                self.connection = super().connect()
                break
            except psycopg.OperationalError:
                if not left:
                    raise

    def connect(self):
        return self.connection


class Patient(LoggedIn):
    """Says again what could not be served, once the store is `back`."""

    def __init__(self, dsn, statements, back):
        super().__init__(dsn, statements)
        self.back, self.unserved = back, [0, 0]

    def read(self, cursor, sql):
        for left in reversed(range(UNSERVED_MAX)):
            was_back = self.back.is_set()
            try:
                return super().read(cursor, sql)
            except psycopg.Error as error:
                if error.sqlstate != UNSERVED or not left or not self.back.wait(HEARD_SECONDS_MAX):
                    raise
                self.unserved[was_back] += 1


@pytest.fixture(scope="module")
def store(run):
    """As the harness has it, it would forget what it called committed: that gateways do not let it is part of the proof."""
    made = Server(run, title="killed-store", settings={"full_page_writes": "on"})
    yield made
    made.stop()


@pytest.fixture(scope="module")
def places(fresh_gateway, shop, trust, run, store):
    admin(shop, SCHEMA)
    address = url(store.create_database("state"))
    made = []
    for number in range(2):
        gateway = fresh_gateway(f"over-a-killed-store-{number}", policy=dump({**POLICY, "rules": RULES})).trust(trust.entry())
        gateway.config["console"] = {"roles": {"viewer": ["dpo"], "admin": ["ops"]}}
        gateway.config["store"] = {"file": str(run.secret_file(f"killed-{number}.store", address + "\n"))}
        if made:
            gateway.config["keys"] = str(made[0].gateway.folder / "keys")
        made.append(Place(gateway.start(level="warn"), trust))
    yield made
    for place in made:
        place.gateway.stop()
    admin(shop, "DROP SCHEMA held CASCADE")


def pieces(chance, most=40):
    """Of the table with a limit."""
    while True:
        low = chance.randrange(0, 500 - most)
        yield f"SELECT id, note FROM held.notes WHERE id > {low} AND id <= {low + chance.randrange(1, most + 1)}"


class Round:
    """Two who read under one limit, one who waits for a human, and two who collect one approval; at both gateways."""

    number = itertools.count()

    def __init__(self, places, chance):
        self.places, self.chance, self.back = places, chance, threading.Event()
        here = next(self.number)
        self.reader, self.waiter, self.collector = (f"{name}-{here}" for name in ("reads", "waits", "collects"))
        assert self.now(places[0].as_agent(self.collector, "robots"), [WHOLE]).said == "YG001"
        places[0].told("POST", f"approvals/{places[0].waiting(self.collector)}/approve", {})
        self.waits = LoggedIn(chance.choice(places).as_agent(self.waiter), [WHOLE])
        self.waits.start()
        self.waits_for = places[0].waiting(self.waiter)
        self.readers = [Patient(place.as_agent(self.reader), pieces(random.Random(chance.random())), self.back) for place in places]
        self.collectors = [LoggedIn(place.as_agent(self.collector, "robots"), [WHOLE]) for place in places]
        self.answers = []
        self.approving = threading.Thread(target=self.approve, args=(chance.choice(places),), daemon=True)

    @staticmethod
    def now(dsn, statements):
        """The store is there."""
        back = threading.Event()
        back.set()
        client = Patient(dsn, statements, back)
        client.run()
        return client

    def approve(self, place):
        """Until it is known that it is approved: also by an answer that was not heard."""
        self.readers[0].began.wait(HEARD_SECONDS_MAX)
        while not self.answers or self.answers[-1] not in (200, 409):
            if self.answers and not self.back.wait(HEARD_SECONDS_MAX):
                return
            status, _ = place.ask("POST", f"approvals/{self.waits_for}/approve", {})
            self.answers.append(status)
            if len(self.answers) >= UNSERVED_MAX:
                return

    def killed(self, store):
        everybody = [*self.readers, *self.collectors, self.approving]
        for one in everybody:
            one.start()
        self.readers[0].began.wait(HEARD_SECONDS_MAX)
        self.readers[0].join(self.chance.uniform(0, KILLED_WITHIN_SECONDS))
        store.kill()
        store.start()
        for place in self.places:
            wait_until("it is ready again", lambda place=place: place.gateway.ready()[0] == 200, seconds=HEARD_SECONDS_MAX)
        self.back.set()
        for one in (*everybody, self.waits):
            one.join(HEARD_SECONDS_MAX)
        assert not [one for one in (*everybody, self.waits) if one.is_alive()], "somebody hangs"

    def check_limit(self):
        place = self.places[0]
        seen = sum(reader.rows for reader in self.readers)
        used = place.used(self.reader)
        assert [reader.said for reader in self.readers] == ["53400", "53400"], "who was not served is served again, up to the limit"
        assert seen <= used <= LIMIT, (seen, used)
        rest = []

        def is_used_up():
            rest.append(self.now(place.as_agent(self.reader), pieces(self.chance, most=1)))
            assert rest[-1].said == "53400", rest[-1].said
            return place.used(self.reader) == LIMIT

        # What nobody got is given back, as far as the store was there to take it, and by nobody who is waited for.
        wait_until("the rest of the limit is read, row by row", is_used_up, seconds=HEARD_SECONDS_MAX)
        lost = LIMIT - seen - sum(client.rows for client in rest)
        assert 0 <= lost <= len(self.readers) * CHUNKS_LOST_MAX * CHUNK_MAX, lost
        return lost

    def check_wait(self):
        assert self.answers[-1] in (200, 409), self.answers
        state = self.places[1].state(self.waits_for)
        rows, said = self.waits.rows, self.waits.said
        assert (rows, said) in ((500, None), (0, UNSERVED)) or (0 < rows < 500 and said == UNSERVED), (rows, said)
        assert state in (("consumed",) if rows else ("approved", "consumed")), (rows, said, state)
        if state == "approved":
            again = self.now(self.places[1].as_agent(self.waiter), [WHOLE])
            assert (again.rows, again.said) == (500, None), "what was approved and not used is collected"
            assert self.places[0].state(self.waits_for) == "consumed"
        return rows

    def check_collected(self):
        again = self.now(self.places[0].as_agent(self.collector, "robots"), [WHOLE, WHOLE])
        clients = [*self.collectors, again]
        assert again.said == "YG001" and {client.said for client in self.collectors} <= {None, "YG001", UNSERVED}, [
            client.said for client in clients
        ]
        got = [client.rows for client in clients if client.rows]
        assert len(got) <= 1, f"an approval for one use was used {len(got)} times"
        return "nobody" if not got else "afterwards" if again.rows else "at once"


def test_what_a_killed_store_has_promised_is_kept_and_nobody_hangs(places, store):
    print(f"EXEAT_CRASH_SEED={SEED} EXEAT_CRASH_ROUNDS={ROUNDS}")
    chance = random.Random(SEED)
    found = collections.Counter()
    lost_most = 0
    for number in range(ROUNDS):
        each = Round(places, chance)
        each.killed(store)
        lost = each.check_limit()
        lost_most = max(lost_most, lost)
        found["counted and not seen"] += lost > 0
        found["read refused"] += any(reader.unserved[False] for reader in each.readers)
        found["read refused after"] += sum(reader.unserved[True] for reader in each.readers)
        found[f"waited for {each.check_wait()} rows"] += 1
        found["approved unheard"] += each.answers != [200]
        found[f"collected {each.check_collected()}"] += 1
        print(f"round {number}: {lost} rows counted and not seen", flush=True)
    print(f"at most {lost_most} rows counted and not seen; {dict(found)}")
