"""`exeat demo` from outside: what it prints can be pasted, and when it ends nothing is left."""

import os
import re
import signal
import subprocess

import pytest

from lib.run import wait_until
from spine import REDACTED


def left(folder):
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [str(path) for path in folder.iterdir()] + [line for line in listing.splitlines() if str(folder) in line]


def test_the_tour_shows_both_sides_a_refusal_and_the_record(program, folder):
    done = subprocess.run(
        [program, "demo", "--try"], capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    for words in (REDACTED, "*******7920", "137-54-7920", "masked_column_in_predicate", "statement.outcome", "no-payroll"):
        assert words in done.stdout, words
    assert "eyJ" not in done.stdout + done.stderr
    assert left(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_printed_lines_can_be_pasted_and_an_end_leaves_nothing(program, folder, number):
    output = folder.parent / "output"
    with open(output, "w", encoding="utf-8") as file:
        child = subprocess.Popen(
            [program, "demo"], stdout=file, stderr=file, stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(folder), "NO_COLOR": "1"},
        )
    try:
        lines = wait_until("the demo prints how to connect", lambda: printed(output), seconds=60)
        masked, clear = (paste(line) for line in lines[:2])
        assert REDACTED in masked and "hugo.lindgren1@example.org" not in masked
        assert "hugo.lindgren1@example.org" in clear
        # The token is on the screen and nowhere else.
        token = re.search(r"eyJ[\w.-]+", lines[0])[0].encode()
        assert not any(token in path.read_bytes() for path in folder.rglob("*") if path.is_file() and readable(path))
    finally:
        child.send_signal(number)
        assert child.wait(60) is not None
    wait_until("nothing is left of the demo", lambda: left(folder) == [])


def readable(path):
    return os.access(path, os.R_OK)


def printed(output):
    """The two complete psql lines, agent first."""
    lines = [line.strip() for line in output.read_text().splitlines() if "PGPASSWORD=" in line and "psql" in line]
    return lines if len(lines) >= 2 else None


def paste(line):
    """As a person would: into a shell, with a statement on psql's standard input."""
    done = subprocess.run(
        ["bash", "-c", line], input="SELECT email FROM customers WHERE id = 1;\n", capture_output=True, text=True, check=False,
        timeout=60, env={**os.environ, "PAGER": "cat", "PSQLRC": "/dev/null"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
