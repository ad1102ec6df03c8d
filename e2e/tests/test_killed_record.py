"""A gateway that is killed at any moment of its traffic, and sometimes of its start: what the server was sent is on record, what a
client got is on record, the log goes on where it was and says what nobody saw the end of, and it verifies.
EXEAT_KILL_ROUNDS says how often (1000 in a long run); EXEAT_KILL_SEED repeats one."""

import os
import random
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from lib import wire
from lib.gateway import Shop
from lib.relay import Relay
from lib.run import HarnessError, wait_until
from witnesses import (
    ASKED, ROWS, OpenIntents, RecordLog, ServerLog, logging_server, marked, marks_on_record, recorded_gateway,
    released_beyond_record, sessions_of, verified,
)

ROUNDS = int(os.environ.get("EXEAT_KILL_ROUNDS", "30"))
SEED = int(os.environ.get("EXEAT_KILL_SEED", str(random.randrange(1 << 31))))
# A gateway is killed so long after one of its clients is logged in; in one round of so many, after they have knocked...
KILLED_AFTER_SECONDS = (0.005, 0.3)
KILLED_AT_LOGIN_EVERY = 10
# ...and in one of so many once more, while it starts.
KILLED_AT_START_EVERY = 10
LOGIN_SECONDS_MAX = 20
START_SECONDS = 0.3
# A record is begun anew after so many, so that reading it whole does not become what takes the time.
ROUNDS_OF_A_RECORD = 25
RAW_CLIENTS, DRIVERS = 2, 1
GONE = (wire.Closed, wire.LoginRefused, OSError, psycopg.Error)


@pytest.fixture(scope="module")
def server(run):
    made = logging_server(run, "killed-upstream")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shop(server):
    return Shop(server)


def raw(dsn, name, chance, began):
    with wire.Connection(dsn.host, dsn.port) as connection:
        connection.login(dsn)
        began.set()
        for number in range(100_000):
            chance.choice(ASKED)(connection, f"{name}.{number}")


def driver(dsn, name, chance, began):
    with psycopg.connect(dsn.text(), autocommit=True) as connection:
        began.set()
        for number in range(100_000):
            connection.execute(ROWS.format("%s", marked(f"{name}.{number}")), [chance.randrange(1, 40)])


def until_it_is_gone(talk, *arguments):
    try:
        talk(*arguments)
    except GONE:
        pass


class Rounds:
    def __init__(self, gateway, trust, server, chance):
        self.gateway, self.chance = gateway, chance
        self.begin()
        self.dsn = gateway.dsn(trust.token("agent-7", ["agents"], ttl="10h"))
        self.sent = ServerLog(server)
        # Statements on record, of all rounds: the server may write down late what it was sent.
        self.recorded = set()
        self.figures = {"rounds": 0, "sessions": 0, "statements": 0, "bytes": 0, "left open": 0, "torn": 0, "killed at start": 0}

    def begin(self):
        """A new record, signed for the first time: before that `verify` has nothing to hold it against."""
        self.gateway.start(level="warn")
        self.log, self.intents = RecordLog(self.gateway), OpenIntents()
        checkpoint = self.gateway.data_dir / "tree" / "checkpoint"
        wait_until("the new record is signed", checkpoint.exists)

    def kill(self):
        process = self.gateway.process
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        self.gateway.run.forget(process)

    def traffic(self, relay, name):
        """Ends with the gateway's."""
        dsn = self.dsn.with_(port=relay.port)
        talks = [raw] * RAW_CLIENTS + [driver] * DRIVERS
        began = threading.Event()
        if self.chance.randrange(KILLED_AT_LOGIN_EVERY) == 0:
            began.set()
        chances = [random.Random(self.chance.random()) for _ in talks]
        clients = [
            threading.Thread(target=until_it_is_gone, args=(talk, dsn, f"{name}.{number}", chances[number], began))
            for number, talk in enumerate(talks)
        ]
        for client in clients:
            client.start()
        assert began.wait(LOGIN_SECONDS_MAX), "nobody could log in"
        time.sleep(self.chance.uniform(*KILLED_AFTER_SECONDS))
        self.kill()
        for client in clients:
            client.join(20)
        assert not any(client.is_alive() for client in clients), "a client hangs on a gateway that is gone"

    def start(self):
        if self.chance.randrange(KILLED_AT_START_EVERY) == 0:
            self.figures["killed at start"] += 1
            self.gateway.launch(level="warn")
            time.sleep(self.chance.uniform(0, START_SECONDS))
            self.kill()
            self.verify("killed while it started")
        self.gateway.start(level="warn")

    def verify(self, what):
        if (self.gateway.data_dir / "log").exists() and any((self.gateway.data_dir / "log").iterdir()) and self.log.is_torn():
            # Until the next start has cut it: that is looked at then.
            self.figures["torn"] += 1
            return
        status, wrong = verified(self.gateway.data_dir)
        assert status == 0, f"{what}: {wrong}"

    def round(self, name):
        with Relay(self.dsn.port) as relay:
            self.traffic(relay, name)
            self.verify("after the kill")
            lines = self.log.new()
            assert not self.intents.follow(lines), "recovery wrote into a running gateway's record"
            left_open = dict(self.intents.open)
            self.start()
            answers = relay.answers()
        recovered = self.log.new()
        assert self.intents.follow(recovered) == left_open, "recovery names the intents that were open, and no others"
        self.held_against(sessions_of(lines), answers)
        self.figures["rounds"] += 1
        self.figures["left open"] += len(left_open)

    def held_against(self, sessions, answers):
        beyond = released_beyond_record(self.gateway, sessions, answers)
        assert not beyond, f"released before it was on record: {beyond}"
        with ThreadPoolExecutor(2) as pool:
            self.recorded.update(*pool.map(lambda session: marks_on_record(self.gateway, session), sessions.values()))
        self.all_sent_is_on_record()
        self.figures["sessions"] += len(sessions)
        self.figures["bytes"] += sum(map(len, answers.values()))

    def all_sent_is_on_record(self):
        sent = self.sent.new()
        missing = set(sent) - self.recorded
        assert not missing, f"sent to the server before it was on record: {missing}"
        self.figures["statements"] += len(sent)

    def begin_anew(self):
        self.gateway.stop()
        status, wrong = verified(self.gateway.data_dir)
        assert status == 0, wrong
        shutil.rmtree(self.gateway.data_dir)
        self.begin()


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_whenever_a_gateway_is_killed_its_record_has_what_it_sent_and_released(run, program, trust, server, shop, durability):
    rounds = ROUNDS // 2 + (ROUNDS % 2 if durability == "os" else 0)
    print(f"EXEAT_KILL_SEED={SEED} EXEAT_KILL_ROUNDS={ROUNDS}: {rounds} with durability {durability}")
    gateway = recorded_gateway(run, trust, shop, f"killed-{durability}", durability)
    done = Rounds(gateway, trust, server, random.Random(f"{SEED} {durability}"))
    began = time.monotonic()
    for number in range(rounds):
        try:
            done.round(f"{durability}{number}")
        except (AssertionError, HarnessError) as problem:
            raise AssertionError(f"round {number}: {problem}") from problem
        if (number + 1) % ROUNDS_OF_A_RECORD == 0:
            done.begin_anew()
            print(f"{number + 1} rounds, {time.monotonic() - began:.0f} s", flush=True)
    gateway.stop()
    status, wrong = verified(gateway.data_dir)
    assert status == 0, wrong
    done.all_sent_is_on_record()
    print(done.figures)
    assert done.figures["statements"] > 0 and done.figures["left open"] > 0, done.figures
