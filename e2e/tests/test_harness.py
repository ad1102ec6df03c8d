"""The harness keeps its own promises: four lines, and nothing left behind."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lib.dsn import psql_command
from lib.run import wait_until

UP = Path(__file__).resolve().parent.parent / "up"
NAMES = ["DIRECT_DSN", "EXEAT_DSN", "ADMIN_DSN", "CONSOLE_URL"]


def up(folder, *options):
    environment = {**os.environ, "TMPDIR": str(folder)}
    with open(folder.parent / "up.err", "w+b") as errors:
        child = subprocess.Popen(
            [sys.executable, UP, *options], stdout=subprocess.PIPE, stderr=errors, env=environment, text=True,
        )
        lines = [child.stdout.readline() for _ in NAMES]
        errors.seek(0)
        assert all(lines), errors.read().decode()
        assert child.stdout.read() == "", "the output ends behind the four lines"
    values = {}
    for line in lines:
        (word,) = shlex.split(line)
        name, value = word.split("=", 1)
        values[name] = value
    assert list(values) == NAMES
    return child, values


def ask(dsn, sql):
    done = subprocess.run([psql_command(), "-XAtq", dsn, "-c", sql], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_up_prints_four_lines_and_leaves_nothing_behind(program, folder, number):
    options = ["--tls"] if number == signal.SIGHUP else ["--policy", "pass-through"] if number == signal.SIGINT else []
    child, values = up(folder, *options)
    try:
        direct, through, admin = (ask(values[name], "SELECT current_user") for name in NAMES[:3])
        assert direct == through and admin == "postgres"
        assert direct == ("postgres" if "pass-through" in options else "shop_reader")
        assert any(folder.iterdir())
    finally:
        child.send_signal(number)
        child.communicate(timeout=60)
    wait_until("the temporary folder is empty", lambda: not any(folder.iterdir()), seconds=60)

    def listed():
        return str(folder) in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    wait_until("no process is left", lambda: not listed())


def test_up_says_what_is_wrong_and_leaves_nothing_behind(program, folder):
    broken = folder.parent / "broken.yaml"
    broken.write_text("version: 1\nrulez: []\n")
    done = subprocess.run(
        [sys.executable, UP, "--policy", broken], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert done.returncode != 0 and done.stdout == "" and "rulez" in done.stderr
    wait_until("the temporary folder is empty", lambda: not any(folder.iterdir()))
