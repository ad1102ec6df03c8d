"""Sessions of a run, replayed from the record and held against what went over their clients' sockets, byte for byte."""

import json
import random

from lib.run import HarnessError, say
from lib.transcript import behind_login, replay


def hold_against(stack, many, seed):
    """How many replays differ, of `many` sessions chosen by the seed. The gateway is stopped first: every session has ended."""
    stack.gateway.stop()
    answers = stack.relay.answers()
    sessions = _sessions(stack.gateway)
    heard = sorted((sessions[source], source) for source in answers if source in sessions)
    if not heard:
        raise HarnessError("no session of the run came through the relay")
    chosen = random.Random(seed).sample(heard, min(many, len(heard)))
    wrong, total = 0, 0
    for session, source in chosen:
        got = behind_login(answers[source], whole=False)
        done = replay(stack.gateway, session, "--bytes")
        # A client that leaves at once does not take all that was sent to it.
        same = done.returncode == 0 and done.stdout[: len(got)] == got and (got or not done.stdout)
        total += len(got)
        if not same:
            wrong += 1
            say(f"session {session}: its replay of {len(done.stdout)} bytes is not the {len(got)} that its client got: {done.stderr[:200]}")
    print(f"replays: {len(chosen)} of {len(heard)} sessions, {total} bytes, {wrong} differ (seed {seed})", flush=True)
    return wrong


def _sessions(gateway):
    """Session by the address that it came from."""
    found = {}
    for file in sorted((gateway.data_dir / "log").glob("*.jsonl")):
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                if '"type":"session.start"' in line:
                    event = json.loads(line)
                    found[event["source"]] = event["session"]
    return found
