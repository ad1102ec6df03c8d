"""Cleans up after a run whose own process could not: reads process groups from stdin until it closes.

Started with the folder as its argument. A run that ended well has said `gone` for every group and removed the
folder, and nothing is left to do. Never touches anything it was not told of.
"""

import os
import shutil
import signal
import sys
import time

GRACE_SECONDS_MAX = 10


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main():
    folder = sys.argv[1]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = set()
    for line in sys.stdin:
        word, number = line.split()
        (groups.add if word == "group" else groups.discard)(int(number))
    # The kernel has already asked the children to stop: they get a moment to do it well.
    deadline = time.monotonic() + GRACE_SECONDS_MAX
    while any(alive(group) for group in groups) and time.monotonic() < deadline:
        time.sleep(0.05)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
