"""Runs the corpus's own runner, once for each suite, and judges what it reports. Never looks into a case."""

import json
import os
import subprocess
import sys
import time
from fcntl import LOCK_EX, flock
from pathlib import Path

from lib.run import HarnessError, say

from .corpus import NEEDS_HOLDS, SUITES

E2E = Path(__file__).resolve().parent.parent
VENV = E2E / ".venv"
SUITE_SECONDS_MAX = 3600
FAILURES = {"attacks": ("leaked", "crashed"), "benign": ("over-masked", "blocked", "wrong")}


def python():
    """An interpreter with psycopg: that of the harness's virtual environment, made when it is not there."""
    program = VENV / "bin/python"
    VENV.parent.joinpath(".cache").mkdir(exist_ok=True)
    with open(VENV.parent / ".cache/venv.lock", "w", encoding="utf-8") as lock:
        # Several runs may start at once.
        flock(lock, LOCK_EX)
        if not program.exists() or _call([program, "-c", "import psycopg"], check=False).returncode != 0:
            say(f"making {VENV}")
            _call([sys.executable, "-m", "venv", VENV])
            pip = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            _call([*pip, "-r", E2E / "requirements.txt"])
            (VENV / "installed").touch()
    return program


def _call(command, check=True):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise HarnessError(f"{' '.join(map(str, command[:4]))} failed: {done.stderr.strip()}")
    return done


def choice(corpus, suite, only, holds):
    """The runner's `--only` for this suite, or None for all of it."""
    if only:
        return only
    categories = corpus.categories(suite)
    if holds or NEEDS_HOLDS not in categories:
        return None
    say(f'left out: {suite} of category "{NEEDS_HOLDS}": this gateway cannot hold yet')
    return ",".join(name for name in categories if name != NEEDS_HOLDS)


def run_suite(run, stack, corpus, suite, given):
    """(what the runner reports, its closing line). Its output is shown as it comes."""
    report = run.path(f"{suite}.json")
    command = [python(), "-u", corpus.runner, "--suite", suite, "--json", report]
    command += ["--dsn", stack.dsn(direct=given.direct).text(), "--admin-dsn", stack.admin().text()]
    command += ["--split", given.split, "--server-tmp", stack.server_tmp, "--before-case", stack.before_case]
    command += ["--direct-dsn", stack.dsn(direct=True).text()]
    if suite != SUITES[0]:
        command.append("--no-load")
    if corpus.protected():
        command += ["--bulk-limit", str(max(corpus.protected().values()))]
    only = choice(corpus, suite, given.only, stack.holds)
    if only is not None:
        command += ["--only", only]
    if given.seed is not None:
        command += ["--seed", given.seed]
    # The folder may be read-only. The token goes by the environment: command lines show in the process list.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment.update(PYTHONDONTWRITEBYTECODE="1", PGPASSWORD=stack.token())
    log = run.path(f"{suite}.log")
    child = run.spawn(f"run.py --suite {suite}", command, log, env=environment)
    last = _follow(child, log, suite)
    run.forget(child)
    if child.returncode != 0 or not last:
        raise HarnessError(f"the runner of {suite} ended with status {child.returncode}\n{child.tail()}")
    stack.verify()
    return json.loads(report.read_text(encoding="utf-8")), last


def _follow(child, log, suite):
    """Copies the growing log to stdout until the child ends; returns its closing line, which says the suite first."""
    last, deadline = "", time.monotonic() + SUITE_SECONDS_MAX
    with open(log, encoding="utf-8", errors="replace") as lines:
        while time.monotonic() < deadline:
            ended = child.poll() is not None
            rest = lines.read()
            sys.stdout.write(rest)
            sys.stdout.flush()
            last = (last + rest)[-4096:]
            if ended:
                # Words of the interpreter's own may come after it.
                return next((line for line in reversed(last.splitlines()) if line.startswith(f"{suite}: ")), "")
            try:
                child.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
    raise HarnessError(f"{child.title}: not done within {SUITE_SECONDS_MAX} s\n{child.tail()}")


def clean(reports, chosen=False):
    """True when cases ran and none failed. A suite without a case proves nothing, unless some were `chosen`."""
    failed = sum(reports[suite]["totals"].get(status, 0) for suite in SUITES for status in FAILURES[suite])
    ran = [bool(reports[suite]["cases"]) for suite in SUITES]
    return failed == 0 and (any(ran) if chosen else all(ran))
