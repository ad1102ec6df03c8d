"""A disk that is full, fails, writes half or loses what it was to keep, at each call by which a gateway's record is written: nothing
is sent that is not on record, nothing released, the client hears an error that a program can read, readiness says so, and with
the disk the service is back and the record whole. EXEAT_FAULTS=all fails every call that a clean run makes, in every way (long);
otherwise EXEAT_FAULTS_SEED chooses some."""

import os
import platform
import random
import shutil
import time

import pytest

from lib import wire
from lib.faults import BROKEN, CUT_SHORT, FULL, LOST, ONCE, THERE, Disk, Fault
from lib.gateway import Shop
from lib.relay import Relay
from lib.run import HarnessError, wait_until
from lib.transcript import messages
from witnesses import (
    ASKED, RecordLog, ServerLog, logging_server, marks_on_record, recorded_gateway, released_beyond_record, sessions_of, verified,
)

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="faults.c traps the calls of Linux on x86-64")

ALL = os.environ.get("EXEAT_FAULTS") == "all"
SEED = int(os.environ.get("EXEAT_FAULTS_SEED", str(random.randrange(1 << 31))))
CHOSEN = {"serves": 8, "starts": 3, "starts first": 2, "stops": 1}
SECONDS_MAX = 15
# What `ASKED` hears on a disk that works.
EXPECTED = {"22012", "42501"}
NOT_RECORDED = "58030"
SIGNED_SECONDS = 1.2

WAYS = {
    "write": [("ENOSPC", ONCE), ("EIO", ONCE), ("ENOSPC", CUT_SHORT), ("ENOSPC", FULL), ("EIO", BROKEN), ("EIO", THERE)],
    "sync": [("EIO", ONCE), ("EIO", LOST), ("EIO", BROKEN)],
    "cut": [("EIO", ONCE), ("EIO", BROKEN)],
    "reserve": [("ENOSPC", ONCE), ("EOPNOTSUPP", ONCE), ("ENOSPC", FULL)],
    "create": [("ENOSPC", ONCE), ("EMFILE", ONCE), ("ENOSPC", FULL), ("EIO", THERE)],
    "rename": [("EIO", ONCE), ("EIO", BROKEN), ("EIO", THERE)],
    "mkdir": [("ENOSPC", ONCE), ("ENOSPC", FULL)],
}
LASTING = (FULL, BROKEN, THERE)
# What a gateway says that nobody but a restart can help.
RESTART = "restart the gateway after the disk is checked"
# Where a sync that fails says that nobody knows what is on the disk.
KEPT = ("log", "blobs", "keys", "folder")


@pytest.fixture(scope="module")
def server(run):
    made = logging_server(run, "faulty-upstream")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shop(server):
    return Shop(server)


class Bench:
    """A gateway on a disk that fails to order, and who watches it."""

    def __init__(self, run, trust, server, shop, durability):
        self.durable = durability == "fsync"
        self.gateway = recorded_gateway(run, trust, shop, f"faulty-{durability}", durability)
        self.disk = Disk(run, self.gateway)
        self.dsn = self.gateway.dsn(trust.token("agent-7", ["agents"], ttl="10h"))
        self.sent = ServerLog(server)
        self.marks, self.recorded = 0, set()
        self.log = RecordLog(self.gateway)

    def clean_calls(self):
        """{when: {(part, kind): how many}} of a run without faults."""
        calls = {}
        self.disk.record()
        self.gateway.start(level="warn")
        time.sleep(SIGNED_SECONDS)
        calls["starts first"] = self.disk.recorded()
        with Relay(self.dsn.port) as relay:
            self.disk.record()
            assert self.talk(relay) == []
            time.sleep(SIGNED_SECONDS)
            calls["serves"] = self.disk.recorded()
        self.disk.record()
        self.gateway.stop()
        calls["stops"] = self.disk.recorded()
        self.disk.record()
        self.gateway.start(level="warn")
        time.sleep(SIGNED_SECONDS)
        calls["starts"] = self.disk.recorded()
        return calls

    def talk(self, relay):
        """What a client hears that it would not hear on a disk that works. It always hears why it ends."""
        known = set(relay.answers())
        self.marks += 1
        dsn, ended = self.dsn.with_(port=relay.port), False
        try:
            with wire.Connection(dsn.host, dsn.port) as connection:
                connection.login(dsn)
                for number, ask in enumerate(ASKED):
                    ask(connection, f"{self.gateway.name}.{self.marks}.{number}")
                connection.send(wire.TERMINATE)
        except (wire.LoginRefused, wire.Closed, OSError):
            ended = True
        (answer,) = (answer for source, answer in relay.answers().items() if source not in known)
        found = [(tag, wire.error_fields(message[5:])) for tag, message in messages(answer, whole=False) if tag == "E"]
        heard = [(fields["S"], fields["C"]) for tag, fields in found if fields["C"] not in EXPECTED]
        assert all(code == NOT_RECORDED for _, code in heard), heard
        if ended:
            assert heard and heard[-1][0] == "FATAL" and messages(answer, whole=False)[-1][0] == "E", "it ended without a word"
        return heard

    def is_up(self):
        return self.gateway.process.poll() is None

    def ready(self):
        return self.is_up() and self.gateway.ready()[0] == 200

    def says_no(self):
        wait_until("readiness says that the record is not written", lambda: self.gateway.ready()[0] == 503, seconds=SECONDS_MAX)

    def knows_no_more(self, fault):
        """A sync that failed: until a restart nobody knows what is on the disk."""
        return self.durable and fault.part in KEPT and fault.kind == "sync"

    def asks_for_a_restart(self):
        """Where every call fails, a sync may have been among them."""
        return self.durable and RESTART in self.gateway.log_text()[self.said :]

    def under(self, fault, relay, when):
        """Everything that happens while the disk fails; whether it did."""
        self.said = len(self.gateway.log_text())
        if when == "stops":
            self.disk.order(fault)
            self.gateway.stop()
            return self.disk.lift()
        if when != "serves":
            self.gateway.stop()
        if when == "starts first":
            shutil.rmtree(self.gateway.data_dir)
            self.log = RecordLog(self.gateway)
        self.disk.order(fault)
        if when != "serves":
            self.gateway.launch(level="warn")
            wait_until("it starts or says why not", lambda: not self.is_up() or self.answers(), seconds=SECONDS_MAX)
        if self.is_up():
            self.served_under(fault, relay)
        elif self.gateway.process.returncode == 0:
            raise AssertionError("it ended as if all were well")
        return self.disk.lift()

    def answers(self):
        try:
            return self.gateway.ready()[0] in (200, 503)
        except OSError:
            return False

    def served_under(self, fault, relay):
        self.talk(relay)
        if fault.part == "tree":
            # It is signed beside the road of statements.
            deadline = time.monotonic() + SIGNED_SECONDS + 0.5
            while not self.disk.fired() and time.monotonic() < deadline:
                time.sleep(0.02)
        if not self.disk.fired():
            return
        stops = fault.how in LASTING and not (fault.how == THERE and fault.kind == "create" and fault.part != "tree")
        if stops or self.knows_no_more(fault):
            self.says_no()
            heard = self.talk(relay)
            if fault.how == THERE and fault.part == "tree":
                assert heard == [], "statements do not wait for a signature"
            else:
                assert heard, "served without a record"

    def back(self, fault, relay):
        """The disk works again: so does the gateway, by itself or, where nobody knows what was kept, once it is started again."""
        if self.is_up() and (self.knows_no_more(fault) or self.asks_for_a_restart()):
            assert self.talk(relay), "served on what may be lost"
            assert self.gateway.ready()[0] == 503 and "restart" in self.gateway.log_text()
            self.gateway.stop()
        if not self.is_up():
            if self.gateway.process in self.gateway.run._children:
                self.gateway.run.forget(self.gateway.process)
            self.gateway.start(level="warn")
        wait_until("it is ready again", self.ready, seconds=SECONDS_MAX)
        assert self.talk(relay) == [], "not as before"

    def check(self, relay):
        wait_until("the record verifies", lambda: verified(self.gateway.data_dir)[0] == 0, seconds=SECONDS_MAX)
        sessions = sessions_of(self.log.new())
        beyond = released_beyond_record(self.gateway, sessions, relay.answers(), disk_fails=True)
        assert not beyond, f"released before it was on record: {beyond}"
        for session in sessions.values():
            self.recorded.update(marks_on_record(self.gateway, session))
        missing = set(self.sent.new()) - self.recorded
        assert not missing, f"sent to the server before it was on record: {missing}"

    def case(self, when, fault):
        with Relay(self.dsn.port) as relay:
            fired = self.under(fault, relay, when)
            if fired or not self.is_up():
                self.back(fault, relay)
            self.check(relay)
        return fired


def cases(calls):
    for when, counted in calls.items():
        for (part, kind), many in sorted(counted.items()):
            for nth in range(1, many + 1):
                yield from ((when, Fault(part, kind, nth, error, how)) for error, how in WAYS[kind])


def chosen(calls, chance):
    every = list(cases(calls))
    if ALL:
        return every
    return [case for when, many in CHOSEN.items() for case in chance.sample([one for one in every if one[0] == when], many)]


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_whatever_the_disk_does_nothing_passes_that_is_not_on_record_and_the_service_is_back_with_it(
    run, program, trust, server, shop, durability
):
    bench = Bench(run, trust, server, shop, durability)
    calls = bench.clean_calls()
    todo = chosen(calls, random.Random(f"{SEED} {durability}"))
    print(f"EXEAT_FAULTS_SEED={SEED}: {len(todo)} of {len(list(cases(calls)))} faults with durability {durability}")
    fired, wrong = 0, []
    for when, fault in todo:
        try:
            fired += bench.case(when, fault)
        except (AssertionError, HarnessError) as problem:
            wrong.append(f"it {when}, {fault}: {problem}")
            if not ALL:
                break
            bench.disk.lift()
            if bench.is_up():
                bench.gateway.stop()
            shutil.rmtree(bench.gateway.data_dir)
            bench.log = RecordLog(bench.gateway)
            bench.gateway.start(level="warn")
            print(wrong[-1], flush=True)
    bench.gateway.stop()
    status, said = verified(bench.gateway.data_dir)
    assert not wrong and status == 0, "\n".join([*wrong, *said])
    print(f"{fired} faults came")
    assert fired > len(todo) // 2
