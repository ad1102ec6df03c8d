"""Which tests came out differently through the gateway, and which of these are explained.

The explanations are the table in `docs/compatibility.md`, read from there, so that the page and the check cannot
part. A difference that nobody explained fails; so does an explanation of what no longer differs. Tests that pass now
and then on either road stand in a table of their own: they may differ and need not.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lib.run import HarnessError

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/compatibility.md"
HEADER = "| suite | test | server | direct | gateway | reason |"
UNSTEADY_HEADER = "| suite | unsteady test | seen failing |"
# What may stand between a client and the same answer; anything else is a bug of ours.
REASONS = ("login role", "other roles' passwords", "server files")
OUTCOMES = ("passed", "failed", "skipped", "absent")


@dataclass(frozen=True)
class Difference:
    suite: str
    test: str
    direct: str
    gateway: str

    def __str__(self):
        return f"{self.suite}: {self.test}: {self.direct} directly, {self.gateway} through the gateway"


def _rows(text, header):
    """(line, cells) of each row of the table that begins with this header."""
    lines = iter(text.splitlines())
    if header not in lines:
        raise HarnessError(f'{PAGE.name} has no table that begins "{header}"')
    next(lines, None)
    wanted = header.count("|") - 1
    for line in lines:
        if not line.startswith("|"):
            return
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != wanted:
            raise HarnessError(f"{PAGE.name}: {len(cells)} cells instead of {wanted} in: {line}")
        yield line, cells


def unsteady(text):
    """(suite, test) of the tests that fail now and then without a gateway: the row says how often they were seen to."""
    tests = set()
    for line, (suite, test, seen) in _rows(text, UNSTEADY_HEADER):
        direct = re.fullmatch(r"directly (\d+) of (\d+), through the gateway \d+ of \d+", seen)
        if direct is None or not 0 < int(direct[1]) < int(direct[2]):
            raise HarnessError(f"{PAGE.name}: a test that was not seen to fail and to pass directly is not unsteady: {line}")
        tests.add((suite, test.strip("`")))
    return tests


def explained(text, major):
    """The table's rows for this server, each a `Difference`; raises where a row is not one."""
    rows = {}
    for line, (suite, test, servers, direct, gateway, reason) in _rows(text, HEADER):
        if direct not in OUTCOMES or gateway not in OUTCOMES or direct == gateway:
            raise HarnessError(f"{PAGE.name}: the outcomes are not two different ones of {', '.join(OUTCOMES)}: {line}")
        if not reason.startswith(tuple(f"{known}: " for known in REASONS)):
            raise HarnessError(f"{PAGE.name}: the reason begins with none of {', '.join(REASONS)}: {line}")
        if str(major) in [server.strip() for server in servers.split(",")]:
            rows[Difference(suite, test.strip("`"), direct, gateway)] = reason
    return rows


def outcomes(work, suite, label):
    """What peers.py wrote: outcome by test."""
    path = work / "results" / f"{suite}.{label}.json"
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise HarnessError(f'no result of suite "{suite}" ({label}) in "{path}": {error}') from error


def baseline(work, suite, label):
    """The outcomes of the direct run. A suite that did not start there would be "the same" through any gateway."""
    read = outcomes(work, suite, label)
    # peers.py reports what went wrong with a suite itself in parentheses.
    aside = [test for test in read if test.startswith("(")]
    if aside or "passed" not in read.values():
        what = aside[0] if aside else "no test passed"
        raise HarnessError(f'suite "{suite}" did not run directly: {what}; see "{work / "logs"}"')
    return read


def between(suite, direct, gateway):
    """The tests of one suite whose outcome is not the same."""
    found = []
    for test in sorted(set(direct) | set(gateway)):
        first, second = direct.get(test, "absent"), gateway.get(test, "absent")
        if first != second:
            found.append(Difference(suite, test, first, second))
    return found


def judge(found, table, wavering, suites):
    """(differences nobody explained, explanations of what no longer differs in the suites that ran)."""
    steady = [difference for difference in found if (difference.suite, difference.test) not in wavering]
    unexplained = [difference for difference in steady if difference not in table]
    stale = [row for row in table if row.suite in suites and row not in found]
    return unexplained, stale


def figures(read):
    """Passed, failed and skipped, as the documentation writes them."""
    values = list(read.values())
    return "/".join(str(values.count(outcome)) for outcome in ("passed", "failed", "skipped"))
