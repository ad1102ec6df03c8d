"""A disk that fails when it is told to, under one gateway's data folder: e2e/faults/faults.c, built for the run and preloaded."""

import errno
import mmap
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .run import HarnessError

SOURCE = Path(__file__).resolve().parent.parent / "faults" / "faults.c"
# As the source has them.
KINDS = ["write", "sync", "cut", "reserve", "create", "rename", "mkdir"]
PARTS = ["log", "blobs", "keys", "tree", "folder"]
ONCE, CUT_SHORT, LOST, THERE, FULL, BROKEN = "once", "cut short", "lost", "from then on there", "full", "broken"
# What a full disk still does, and what a broken one does not.
TAKES_SPACE = ["write", "reserve", "create", "mkdir"]
RECORDING, SEEN, FIRED = 36, 40, 44


def mask(names, chosen):
    return sum(1 << names.index(name) for name in chosen)


@dataclass(frozen=True)
class Fault:
    """The `nth` call of this kind in this part of the folder fails. `how`: `once`; `cut short`, once, with half of a write done;
    `lost`, a sync, with what was written since the last one; `from then on there`, it and those like it; `full`, and whatever takes space from then on; `broken`, and whatever changes anything from then on."""

    part: str
    kind: str
    nth: int
    error: str = "EIO"
    how: str = ONCE

    def __str__(self):
        return f"{self.kind} {self.nth} of {self.part}: {self.error} {self.how}"


class Disk:
    """Under `gateway` from its next start."""

    def __init__(self, run, gateway):
        library = run.path(f"{gateway.name}.faults.so")
        command = ["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode != 0:
            raise HarnessError(f"faults.c was not built: {built.stderr}")
        control = run.path(f"{gateway.name}.faults")
        control.write_bytes(bytes(mmap.PAGESIZE))
        with open(control, "r+b") as file:
            self._control = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self._log = run.path(f"{gateway.name}.calls")
        gateway.environment.update(
            LD_PRELOAD=str(library), FAULTS_DIR=str(gateway.data_dir), FAULTS_CONTROL=str(control), FAULTS_LOG=str(self._log)
        )

    def _put(self, at, *numbers):
        self._control[at : at + 4 * len(numbers)] = struct.pack(f"={len(numbers)}I", *numbers)

    def _get(self, at):
        return struct.unpack_from("=I", self._control, at)[0]

    def order(self, fault):
        kinds = {FULL: TAKES_SPACE, BROKEN: KINDS, THERE: [fault.kind]}.get(fault.how, [])
        parts = [fault.part] if fault.how == THERE else PARTS
        self._put(0, 0)
        self._put(4, PARTS.index(fault.part), KINDS.index(fault.kind), fault.nth, getattr(errno, fault.error))
        self._put(20, fault.how == CUT_SHORT, mask(KINDS, kinds), mask(PARTS, parts), fault.how == LOST)
        self._put(SEEN, 0, 0, 0)
        self._put(0, 1)

    def lift(self):
        """Whether the call came that was to fail."""
        self._put(0, 0)
        return self._get(FIRED) > 0

    def fired(self):
        return self._get(FIRED) > 0

    def record(self):
        """From here on."""
        self._log.write_bytes(b"")
        self._put(RECORDING, 1)

    def recorded(self):
        """{(part, kind): how many calls there were}"""
        self._put(RECORDING, 0)
        return Counter(tuple(line.split(" ")[:2]) for line in self._log.read_text().splitlines())
