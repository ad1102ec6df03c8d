#!/usr/bin/env python3
"""What the gateway costs: direct against pgbouncer (session pooling) against Exeat, in one interleaved run.

    bench/run.py [--only bulk,points,latency,connects,idle] [--rounds 3] [--seconds 3] [--scale 20] [--clients 1,16,64]
                 [--modes simple,extended,prepared] [--rows 2000000] [--sessions 1000] [--durability os]
                 [--json FILE] [--page FILE]

Endpoints: `direct`; `pgbouncer`, where installed; `pass` (Exeat, pass-through policy: authenticated and recorded); `policy`
(Exeat, a policy with sealed columns that the statement does not touch); `masked` (the same, the statement returns them);
`unkept` (as `masked`, with no row kept in the record) and `synced` (as `masked`, the record on the disk before anything leaves);
`counted` (as `policy`, with a limit of rows that every row counts against).
Rounds take turns over the endpoints and medians are shown, with each figure's ratio. CPU is user + system time of the proxy's
process from /proc: the figure to steer by, because client, server and proxy share the machine's cores.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

import idle  # noqa: E402
import bulk  # noqa: E402
import points  # noqa: E402
from bulk import Bulk  # noqa: E402
from connects import Connects  # noqa: E402
from figures import load, machine  # noqa: E402
from lib.gateway import REPOSITORY, binary  # noqa: E402
from lib.run import HarnessError, Run, end_on_signals, say  # noqa: E402
from place import Place, pgbouncer_command  # noqa: E402
from points import Points  # noqa: E402

PARTS = ("bulk", "points", "latency", "connects", "idle")


MARKS = "<!-- figures -->\n", "<!-- /figures -->\n"


def words(text):
    return text.split(",")


def numbers(text):
    return [int(word) for word in words(text)]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=words, default=list(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each pgbench run")
    parser.add_argument("--scale", type=int, default=20)
    parser.add_argument("--clients", type=numbers, default=[1, 16, 64])
    parser.add_argument("--modes", type=words, default=["simple", "extended", "prepared"])
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the bulk read")
    parser.add_argument("--sessions", type=int, default=1000, help="idle at once")
    parser.add_argument("--durability", choices=["os", "fsync"], default="os", help="of Exeat's record")
    parser.add_argument("--json", metavar="FILE", help="also write every sample")
    parser.add_argument("--page", metavar="FILE", help="also put the figures between this page's marks")
    given = parser.parse_args()
    for part in given.only:
        if part not in PARTS:
            parser.error(f'part "{part}" is not one of {", ".join(PARTS)}')
    return given


def build_measured(path, given_by_hand):
    """What the figures are of. A binary handed in says nothing of its commit: the checkout's would be a guess."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    if given_by_hand:
        return f"binary of EXEAT_BIN (sha256 {digest}), commit not known"
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"], cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )
    return f"commit {described.stdout.strip() or 'unknown'} (binary sha256 {digest})"


def pgbouncer_version():
    program = pgbouncer_command()
    if program is None:
        return "no pgbouncer"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return said.splitlines()[0] if said else "pgbouncer of unknown version"


def preamble(place, given):
    files = ("--page", "--json")
    told = [word for word in sys.argv[1:] if not word.startswith(files) and word not in (given.page, given.json)]
    command = " ".join(["bench/run.py", *told])
    print(
        f"`{command}`: {given.build}, PostgreSQL {place.version}, {pgbouncer_version()}; {machine()}, shared by client, server "
        f"and proxy; load before the run {load()}. Scale {given.scale}, medians of {given.rounds} interleaved rounds of {given.seconds} s, "
        "loopback, without TLS where not said, token login, record with durability "
        f"{given.durability}.\n",
        flush=True,
    )


def bench(run, given):
    started = time.monotonic()
    place = Place(run, given)
    preamble(place, given)
    if {"points", "latency", "connects"} & set(given.only):
        points.load_tables(place, given)
    if "bulk" in given.only:
        bulk.load_table(place, given)
    found = place.roads()
    kinds = [kind for name, kind in (("bulk", Bulk), ("points", Points), ("connects", Connects)) if name in given.only]
    parts = [kind(place, found, given) for kind in kinds]
    # Bulk reads first, all of them: the peak memory they are told with is then of gateways that have done nothing else.
    for group in ([part for part in parts if isinstance(part, Bulk)], [part for part in parts if not isinstance(part, Bulk)]):
        for turn in range(given.rounds):
            for part in group:
                say(f"round {turn + 1} of {given.rounds}: {part.title.lower()}")
                part.round()
    for part in parts:
        print(f"### {part.title}\n")
        part.report()
    if "latency" in given.only:
        say("latencies")
        print("### Latency\n")
        (next((part for part in parts if isinstance(part, Points)), None) or Points(place, found, given)).report_latency()
    if "idle" in given.only:
        say("memory")
        print("### Memory of idle sessions\n")
        idle.report(place, given)
    print(f"Took {(time.monotonic() - started) / 60:.1f} minutes; load after the run {load()}.")
    if given.json:
        samples = {part.title: [[*(key if isinstance(key, tuple) else (key,)), value] for key, value in part.results.items()] for part in parts}
        Path(given.json).write_text(json.dumps(samples, indent=1) + "\n")


class Both(io.StringIO):
    """Kept, and shown as it comes."""

    def write(self, text):
        sys.__stdout__.write(text)
        return super().write(text)

    def flush(self):
        sys.__stdout__.flush()


def put_on_page(page, figures):
    before, _, rest = page.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text("".join([before, MARKS[0], figures.strip(), "\n", MARKS[1], after]))


def main():
    given = arguments()
    end_on_signals()
    # Thousands of sockets, on both sides of each proxy.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        by_hand = bool(os.environ.get("EXEAT_BIN"))
        path = binary(release=True)
        given.build = build_measured(path, by_hand)
        say(f"measuring {given.build}")
        os.environ["EXEAT_BIN"] = str(path)
        if given.page and not all(mark in Path(given.page).read_text() for mark in MARKS):
            raise HarnessError(f'page "{given.page}" has no marks {MARKS[0].strip()} and {MARKS[1].strip()}')
        figures = Both()
        with Run() as run, contextlib.redirect_stdout(figures):
            bench(run, given)
        if given.page:
            put_on_page(Path(given.page), figures.getvalue())
    except (HarnessError, OSError, subprocess.CalledProcessError) as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
