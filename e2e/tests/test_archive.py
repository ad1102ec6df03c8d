"""The record copied off the machine: what a copy of the archive holds verifies like the gateway's own folder, however often
the gateway is killed and the archive is away; nothing there is overwritten; and statements at sealed data wait for it where
the configuration says so."""

import json
import shutil
import signal
import subprocess

import psycopg
import pytest

from lib import record
from lib.gate import Gate
from lib.gateway import binary
from lib.run import wait_until
from lib.s3 import ACCESS_KEY, S3, SECRET_KEY
from test_evidence import verified
from test_keeping import ROLES, Keeping

EVERY = "1s"


@pytest.fixture(scope="module")
def s3(run):
    return S3(run)


def folder_of(gateway):
    place = gateway.run.path(f"{gateway.name}-archive")
    place.mkdir(mode=0o700, exist_ok=True)
    return place


def to_folder(gateway, **audit):
    gateway.config["audit"] = {"archive": {"url": f"file://{folder_of(gateway)}", "every": EVERY}, **audit}
    return gateway


def to_bucket(gateway, s3, bucket, port=None, **audit):
    secret = gateway.run.secret_file(f"{gateway.name}.s3", SECRET_KEY)
    access = gateway.run.secret_file(f"{gateway.name}.s3id", ACCESS_KEY)
    archive = {
        "url": f"s3://{s3.bucket(bucket)}/deep/er", "region": "us-east-1", "endpoint": f"http://127.0.0.1:{port or s3.port}",
        "access_key": {"file": str(access)}, "secret_key": {"file": str(secret)}, "every": EVERY,
    }
    gateway.config["audit"] = {"archive": archive, **audit}
    return gateway


def copy_of(gateway, s3=None, bucket=None, name="copy"):
    """The gateway's part of the archive, as `cp -r` or `aws s3 sync` would fetch it."""
    copy = gateway.run.path(f"{gateway.name}-{name}")
    shutil.rmtree(copy, ignore_errors=True)
    if s3 is None:
        return shutil.copytree(folder_of(gateway) / gateway.config["name"], copy)
    prefix = f"deep/er/{gateway.config['name']}/"
    for key, content in s3.objects(bucket, prefix).items():
        path = copy / key.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return copy


def say(gateway, trust, many=20, sql="SELECT id, ssn FROM customers WHERE id = %s"):
    with psycopg.connect(gateway.dsn(trust.token("agent-7", ["agents"])).text(), autocommit=True) as connection:
        for number in range(many):
            connection.execute(sql, [number])
    wait_ended(gateway, record.events(gateway.data_dir, "session.start")[-1]["session"])


def wait_ended(gateway, *sessions):
    ended = lambda: {event["session"] for event in record.events(gateway.data_dir, "session.end")}
    wait_until("their ends are on record", lambda: ended() >= set(sessions))


def signed(folder):
    """How many records the checkpoint there is for."""
    checkpoint = folder / "tree" / "checkpoint"
    return int(checkpoint.read_text().split("\n")[1]) if checkpoint.exists() else 0


def check(gateway, name="archive"):
    return gateway.readiness()["checks"][name]


def key(gateway):
    done = subprocess.run([binary(), "audit", "key", "--config", gateway.config_file], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wait_anchored(gateway, copy):
    """Until the archive's checkpoint is for what the gateway has on record now."""
    wanted = len(record.lines(gateway.data_dir))
    wait_until("what was on record is anchored", lambda: signed(copy()) >= wanted, seconds=40)


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_copy_of_the_archive_verifies_like_the_gateways_own_folder(fresh_gateway, trust, s3, place):
    gateway = fresh_gateway(f"archived-{place}").trust(trust.entry())
    copy = {
        "folder": lambda: copy_of(to_folder(gateway)),
        "bucket": lambda: copy_of(gateway, s3, "whole"),
    }[place]
    to_folder(gateway) if place == "folder" else to_bucket(gateway, s3, "whole")
    gateway.start()
    for _ in range(3):
        say(gateway, trust, 150)
        wait_anchored(gateway, copy)
    state = check(gateway)
    assert state["state"] == "ok" and "records anchored" in state["detail"], state
    first = copy()
    kept = sorted((first / "tree" / "checkpoints").iterdir())
    assert len(kept) >= 3 and (first / "tree" / "tile" / "0" / "000").stat().st_size == 256 * 32
    status, found = verified(first, "--key", key(gateway), *[part for old in kept for part in ("--checkpoint", old)])
    assert status == 0 and found["signed"]["records"] == found["records"] > 900 and found["not_signed_yet"] == 0, found
    assert found["sealed_texts"] > 400 and len(found["extends"]) == len(kept)
    # What a client sent stands there as little as in the gateway's own folder.
    assert not [path for path in first.rglob("*") if path.is_file() and b"SELECT id, ssn" in path.read_bytes()]
    gateway.stop()


def test_a_tampered_archive_is_found_by_its_record(fresh_gateway, trust):
    gateway = to_folder(fresh_gateway("archived-tampered").trust(trust.entry())).start()
    # A tile's worth: with it the record can be named.
    say(gateway, trust, 150)
    wait_anchored(gateway, lambda: copy_of(gateway))
    gateway.stop()
    copy = copy_of(gateway)
    lines = next(path for path in sorted((copy / "log").iterdir()) if '"statement.intent"' in path.read_text())
    lines.write_text(lines.read_text().replace('"type":"statement.intent"', '"type":"statement.intend"', 1))
    status, found = verified(copy, "--key", key(gateway))
    assert status == 6 and "is not the one that was signed" in found["wrong"][0], found
    copy = copy_of(gateway)
    part = sorted((copy / "blobs").iterdir())[0]
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    status, found = verified(copy, "--key", key(gateway))
    assert status == 6 and "a sealed text of record" in found["wrong"][0], found
    copy = copy_of(gateway)
    sorted((copy / "log").iterdir())[0].unlink()
    assert verified(copy, "--key", key(gateway))[0] == 6


def test_a_killed_gateway_goes_on_where_the_archive_ends(fresh_gateway, trust, s3):
    gateway = to_bucket(fresh_gateway("archived-killed").trust(trust.entry()), s3, "killed")
    prefix = f"deep/er/{gateway.config['name']}/"
    for _ in range(4):
        gateway.start()
        before = len(s3.objects("killed", prefix))
        say(gateway, trust, 60)
        wait_until("something more is archived", lambda: len(s3.objects("killed", prefix)) > before)
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait(30)
        gateway.run.forget(gateway.process)
    gateway.start()
    wait_anchored(gateway, lambda: copy_of(gateway, s3, "killed"))
    assert check(gateway)["state"] == "ok"
    gateway.stop()
    status, found = verified(copy_of(gateway, s3, "killed"), "--key", key(gateway))
    assert status == 0 and found["records"] > 500, found


def test_a_gateway_that_is_ended_ships_the_rest_of_its_record(fresh_gateway, trust):
    """With an hour between two rounds, so that none but the last can have done it."""
    gateway = to_folder(fresh_gateway("archived-ended").trust(trust.entry()))
    gateway.config["audit"]["archive"]["every"] = "1h"
    gateway.start()
    say(gateway, trust, 60)
    gateway.stop()
    copy = copy_of(gateway)
    written = len(record.lines(gateway.data_dir))
    assert signed(copy) == written > 100
    status, found = verified(copy, "--key", key(gateway))
    assert status == 0 and found["records"] == written, found


def test_an_archive_that_was_away_gets_all_of_it_afterwards(fresh_gateway, trust, s3):
    gate = Gate(s3.port)
    gateway = to_bucket(fresh_gateway("archived-away").trust(trust.entry()), s3, "away", port=gate.port).start()
    say(gateway, trust)
    wait_anchored(gateway, lambda: copy_of(gateway, s3, "away"))
    gate.close()
    say(gateway, trust, 100)
    wait_until("the archive is said to be away", lambda: check(gateway)["state"] == "degraded", seconds=40)
    # It is nobody's business who wants to work.
    assert gateway.ready()[0] == 200
    say(gateway, trust, 100)
    gate.open()
    wait_anchored(gateway, lambda: copy_of(gateway, s3, "away"))
    wait_until("the archive is well again", lambda: check(gateway)["state"] == "ok")
    gateway.stop()
    gate.close()
    status, found = verified(copy_of(gateway, s3, "away"), "--key", key(gateway))
    assert status == 0 and found["records"] > 400, found


def test_nothing_of_another_log_is_overwritten(fresh_gateway, trust):
    first = to_folder(fresh_gateway("archived-first").trust(trust.entry())).start()
    say(first, trust)
    wait_anchored(first, lambda: copy_of(first))
    first.stop()
    place = folder_of(first)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    second = fresh_gateway("archived-second").trust(trust.entry())
    second.config.update(name=first.config["name"], audit=first.config["audit"])
    second.start()
    say(second, trust)
    wait_until("the second gateway says so", lambda: check(second)["state"] == "degraded")
    said = check(second)["detail"]
    assert "another gateway" in said and "is not archived" in second.log_text(), said
    second.stop()
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    # A piece that is there already, with other bytes.
    place = to_folder(fresh_gateway("archived-third").trust(trust.entry()))
    taken = folder_of(place) / place.config["name"] / "blobs" / f"{0:020}.{0:020}.part"
    taken.parent.mkdir(parents=True)
    taken.write_text("x")
    place.start()
    say(place, trust)
    wait_until("it is named", lambda: check(place)["state"] == "degraded", seconds=20)
    assert f'"blobs/{0:020}.{0:020}.part"' in check(place)["detail"]
    place.stop()
    assert taken.read_text() == "x"


def test_statements_at_sealed_data_wait_for_a_required_archive(fresh_gateway, trust, s3):
    gateway = to_bucket(fresh_gateway("archived-required").trust(trust.entry()), s3, "required", require_archive="5s")
    gateway.start()
    dsn = gateway.dsn(trust.token("agent-7", ["agents"])).text()
    with psycopg.connect(dsn, autocommit=True) as connection:
        sealed = lambda: connection.execute("SELECT ssn FROM customers WHERE id = 1").fetchone()

        def served():
            try:
                return sealed()
            except psycopg.errors.IoError:
                return None

        wait_until("it is served", served)
        s3.process.send_signal(signal.SIGSTOP)
        try:
            wait_until("the gateway is not ready", lambda: gateway.ready()[0] == 503, seconds=30)
            assert check(gateway)["state"] == "failed"
            with pytest.raises(psycopg.errors.IoError, match="has not been archived for too long") as refused:
                sealed()
            assert json.loads(refused.value.diag.message_detail)["code"] == "not_enforceable"
            # What is not sealed passes, and a transaction can be ended.
            assert connection.execute("SELECT id FROM orders WHERE id = 1").fetchone()
            connection.execute("BEGIN")
            with pytest.raises(psycopg.errors.IoError):
                sealed()
            connection.execute("ROLLBACK")
        finally:
            s3.process.send_signal(signal.SIGCONT)
        wait_until("the archive has caught up", lambda: gateway.ready()[0] == 200, seconds=60)
        wait_until("it is served again", served)
    gateway.stop()
    status, found = verified(copy_of(gateway, s3, "required"), "--key", key(gateway))
    assert status == 0, found


def test_what_is_required_must_be_possible_and_secrets_do_not_stand_in_the_file(fresh_gateway, trust):
    gateway = fresh_gateway("archived-wrong").trust(trust.entry())
    for audit, words in [
        ({"require_archive": "60s"}, "nothing to require"),
        ({"archive": "ftp://x/y"}, "s3://BUCKET/PREFIX"),
        ({"archive": {"url": "s3://b/p", "every": "10s"}, "require_archive": "15s"}, "at least twice"),
        ({"archive": {"url": "s3://b/p", "access_key": "AKIAXX", "secret_key": "literal-secret"}}, "do not stand in this file"),
        ({"archive": {"url": "s3://user:literal-secret@b/p"}}, "s3://BUCKET/PREFIX"),
        ({"archive": "file:///nowhere/at/all"}, "must exist"),
        ({"archive": {"url": "s3://b/p", "region": "x", "endpoint": "http://10.1.2.3"}}, "neither https"),
    ]:
        gateway.config["audit"] = audit
        gateway.write_config()
        done = subprocess.run([binary(), "check", "--config", gateway.config_file], capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 1 and words in said and "literal-secret" not in said, said


def test_an_erasure_reaches_the_archive_and_so_does_the_hand_over_of_keys(fresh_gateway, trust):
    """While the gateway runs: a copy says that the session was erased, and its old key leads to the new one."""
    gateway = to_folder(fresh_gateway("archived-erasure").trust(trust.entry()))
    gateway.config["console"] = ROLES
    gateway.start()
    first = key(gateway)
    copy = lambda: copy_of(gateway)
    say(gateway, trust)
    say(gateway, trust)
    wait_anchored(gateway, copy)
    keeping = Keeping(gateway, trust)
    gone, kept = [event["session"] for event in keeping.events("session.start")]
    replay = lambda session: subprocess.run(
        [binary(), "sessions", "replay", session, "--config", gateway.config_file, "--data", copy()],
        capture_output=True, text=True, check=False,
    )
    assert "ssn" in replay(gone).stdout and "ssn" in replay(kept).stdout
    assert keeping.done("audit", "erase", "--session", gone, "--reason", "article 17")["erased"] == [gone]
    assert keeping.done("audit", "rotate-key")["old"] == first
    wait_until("the archive's key is destroyed", lambda: "was erased" in replay(gone).stderr, seconds=20)
    assert replay(kept).returncode == 0
    wait_anchored(gateway, copy)
    status, found = verified(copy(), "--key", first)
    assert status == 0 and found["erased_sessions"] == 1 and [link["trusted"] for link in found["handed_over"]] == [True], found
    gateway.stop()


def test_an_erasure_reaches_the_archives_of_logs_that_were_kept_aside(fresh_gateway, trust):
    """Each log has a folder of its own there, with the keys of all sessions so far in it."""
    gateway = to_folder(fresh_gateway("archived-aside").trust(trust.entry()))
    gateway.config["console"] = ROLES
    gateway.start()
    keeping = Keeping(gateway, trust)
    place = folder_of(gateway) / gateway.config["name"]
    gone, kept = [keeping.session("agent-7", *[f"SELECT id, ssn FROM customers WHERE id = {n}" for n in range(20)]) for _ in range(2)]
    wait_ended(gateway, gone, kept)
    slots = {event["session"]: event["body"]["data_key"]["slot"] for event in keeping.events("session.start")}
    wait_anchored(gateway, lambda: place)
    gateway.stop()
    gateway.verifies = False
    # The last lines are lost, as with power.
    [log] = (gateway.data_dir / "log").iterdir()
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-3]))
    gateway.start()
    later = keeping.session("agent-7", "SELECT id, ssn FROM customers WHERE id = 1")
    wait_ended(gateway, later)
    slots[later] = keeping.events("session.start")[-1]["body"]["data_key"]["slot"]
    wait_anchored(gateway, lambda: place / "1")

    def key_of(session, folder):
        whole = b"".join(path.read_bytes() for path in sorted((folder / "keys").iterdir()))
        return whole[slots[session] * 60 : slots[session] * 60 + 60]

    copies = [place, place / "1"]
    before = {(session, folder): key_of(session, folder) for session in (gone, kept) for folder in copies}
    assert all(any(key) for key in before.values()), before
    ask = ("audit", "erase", "--reason", "article 17", "--session")
    assert keeping.done(*ask, gone)["erased"] == [gone] and keeping.done(*ask, later)["erased"] == [later]
    wait_until("no archive has its key", lambda: not any(any(key_of(gone, folder)) for folder in copies), seconds=20)
    wait_until("nor that of the later one", lambda: not any(key_of(later, place / "1")), seconds=20)
    assert all(key_of(kept, folder) == before[kept, folder] for folder in copies)
    replayed = lambda session, folder: subprocess.run(
        [binary(), "sessions", "replay", session, "--config", gateway.config_file, "--data", folder],
        capture_output=True, text=True, check=False,
    )
    assert "was erased" in replayed(gone, place).stderr and "ssn" in replayed(kept, place).stdout
    assert check(gateway)["state"] == "ok"
    gateway.stop()
    # What was erased while the gateway did not archive is made good when it does again: here a copy of before was put back.
    piece = sorted((place / "keys").iterdir())[0]
    content = bytearray(piece.read_bytes())
    content[slots[gone] * 60 : slots[gone] * 60 + 60] = before[gone, place]
    piece.write_bytes(content)
    gateway.start()
    wait_until("its key is destroyed again", lambda: not any(key_of(gone, place)), seconds=20)
    gateway.stop()
