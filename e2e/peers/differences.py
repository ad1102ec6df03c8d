"""Which tests came out differently through the gateway, and which of these are explained.

The explanations are the table in `docs/compatibility.md`, read from there, so that the page and the check cannot
part. A difference that nobody explained fails; so does an explanation of what no longer differs.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from lib.run import HarnessError

PAGE = Path(__file__).resolve().parent.parent.parent / "docs/compatibility.md"
HEADER = "| suite | test | server | direct | gateway | reason |"
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


def explained(text, major):
    """The table's rows for this server, each a `Difference`; raises where a row is not one."""
    rows = {}
    lines = iter(text.splitlines())
    if HEADER not in lines:
        raise HarnessError(f'{PAGE.name} has no table that begins "{HEADER}"')
    next(lines, None)
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 6:
            raise HarnessError(f"{PAGE.name}: {len(cells)} cells instead of 6 in: {line}")
        suite, test, servers, direct, gateway, reason = cells
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


def judge(found, table, suites):
    """(differences nobody explained, explanations of what no longer differs in the suites that ran)."""
    unexplained = [difference for difference in found if difference not in table]
    stale = [row for row in table if row.suite in suites and row not in found]
    return unexplained, stale


def figures(read):
    """Passed, failed and skipped, as the documentation writes them."""
    values = list(read.values())
    return "/".join(str(values.count(outcome)) for outcome in ("passed", "failed", "skipped"))
