"""The log as evidence: what a gateway wrote is verified by its own command and by the page's, with stock openssl, and whatever
is altered in a copy is found and named by both."""

import json
import re
import shutil
import subprocess
import sys

import psycopg
import pytest

from lib import record
from lib.gateway import REPOSITORY, binary
from lib.run import wait_until

PAGE = REPOSITORY / "docs" / "record.md"


def exeat(*arguments):
    return subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def verified(folder, *arguments):
    """(exit status, what was found)"""
    done = exeat("audit", "verify", folder, "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


class Evidence:
    def __init__(self, gateway, older):
        self.folder, self.older = gateway.data_dir, older
        said = exeat("audit", "key", "--config", gateway.config_file)
        self.key = said.stdout.strip()
        self.pem = exeat("audit", "key", "--pem", "--config", gateway.config_file).stdout
        assert re.fullmatch(r"\S+\+[0-9a-f]{8}\+\S+", self.key), said


@pytest.fixture(scope="module")
def evidence(fresh_gateway, trust, run):
    """What two runs of a gateway left, and the checkpoint of the first."""
    gateway = fresh_gateway("evidence").trust(trust.entry()).start()
    dsn = gateway.dsn(trust.token("agent-7", ["agents"])).text()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(200):
            connection.execute(f"SELECT id, ssn FROM customers WHERE id = {number}")
    gateway.stop()
    older = run.folder / "older.checkpoint"
    shutil.copy(gateway.data_dir / "tree" / "checkpoint", older)
    gateway.start()
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number in range(100):
            connection.execute("SELECT email FROM customers WHERE id = %s", [number])
    signed = gateway.data_dir / "tree" / "checkpoint"
    wanted = len(record.lines(gateway.data_dir))
    wait_until("what a running gateway writes is signed", lambda: int(signed.read_text().split("\n")[1]) >= wanted, seconds=10)
    gateway.stop()
    return Evidence(gateway, older)


def test_what_a_gateway_wrote_is_signed_to_its_end_and_extends_what_was_signed_before(evidence):
    status, found = verified(evidence.folder, "--key", evidence.key, "--checkpoint", evidence.older)
    assert status == 0 and found["clean"] and found["wrong"] == [] and found["signatures"], found
    assert found["signed"]["records"] == found["records"] > 600 and found["not_signed_yet"] == 0
    assert found["extends"] == [{"name": str(evidence.older), "records": int(evidence.older.read_text().split("\n")[1])}]
    assert found["sealed_texts"] > 300
    told = exeat("audit", "verify", evidence.folder)
    assert told.returncode == 0 and "signatures were not looked at" in told.stdout, told.stdout


def by_the_page(folder, pem):
    """The page's own script and command, as they stand there; how it ended."""
    script, command = re.findall(r"```(?:python|sh)\n(.*?)```", PAGE.read_text().split("## Checking it without us")[1], re.S)[:2]
    work = folder.parent / "by-hand"
    work.mkdir(exist_ok=True)
    (work / "key.pem").write_text(pem)
    done = subprocess.run([sys.executable, "-c", script, str(folder)], cwd=work, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        return done.stderr
    return subprocess.run(["bash", "-c", command], cwd=work, capture_output=True, text=True, timeout=60, check=False).stdout


def test_the_page_s_script_and_openssl_come_to_the_same(evidence, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(evidence.folder, folder)
    assert "Signature Verified Successfully" in by_the_page(folder, evidence.pem)
    log = sorted((folder / "log").iterdir())[0]
    log.write_bytes(log.read_bytes().replace(b'"decision":"allow"', b'"decision":"alloW"', 1))
    assert "is not the one that was signed" in by_the_page(folder, evidence.pem)
    note = (folder / "tree" / "checkpoint").read_text()
    shutil.copytree(evidence.folder, folder, dirs_exist_ok=True)
    origin, size, rest = note.split("\n", 2)
    (folder / "tree" / "checkpoint").write_text(f"{origin}x\n{size}\n{rest}")
    assert "Signature Verified Successfully" not in by_the_page(folder, evidence.pem)


def line(change):
    def apply(folder):
        log = sorted((folder / "log").iterdir())[0]
        lines = log.read_bytes().split(b"\n")
        change(lines)
        log.write_bytes(b"\n".join(lines))
    return apply


def altered(lines):
    lines[40] = lines[40].replace(b'"v":1', b'"v":2')


def swapped(lines):
    lines[40], lines[41] = lines[41], lines[40]


TAMPERED = {
    "altered": (line(altered), "record 40 is not the one that was signed"),
    "removed": (line(lambda lines: lines.pop(40)), "record 40 is missing"),
    "swapped": (line(swapped), "record 40 is missing"),
    "cut": (line(lambda lines: lines.__delitem__(slice(500, -1))), "the log ends after 500 records"),
}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_is_tampered_with_is_found_and_named(evidence, tmp_path, how):
    change, words = TAMPERED[how]
    folder = tmp_path / "copy"
    shutil.copytree(evidence.folder, folder)
    change(folder)
    status, found = verified(folder, "--key", evidence.key)
    assert status == 6 and not found["clean"] and words in found["wrong"][0], found


def test_an_old_copy_is_told_by_a_newer_checkpoint_and_a_forged_one_by_the_key(evidence, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(evidence.folder, folder)
    newer = tmp_path / "newer"
    shutil.copy(folder / "tree" / "checkpoint", newer)
    shutil.copy(evidence.older, folder / "tree" / "checkpoint")
    kept = int(evidence.older.read_text().split("\n")[1])
    line(lambda lines: lines.__delitem__(slice(kept, -1)))(folder)
    assert verified(folder, "--key", evidence.key)[0] == 0, "by itself an old copy is whole"
    status, found = verified(folder, "--key", evidence.key, "--checkpoint", newer)
    assert status == 6 and "an old copy, or its end was cut off" in found["wrong"][0], found
    other = evidence.key.rsplit("+", 1)[0] + "+" + "AYEKNTLzeD6BNGgHcqdnhqLnRyOL9HjMOMGkqdIIhz2M"
    assert exeat("audit", "verify", folder, "--key", other).returncode != 0
