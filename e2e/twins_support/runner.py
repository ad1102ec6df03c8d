"""Runs every unit on both twins, compares what the client saw, and counts.

The order is A and B, A and B again, so that what does not roll back (sequences, object numbers) moves on equally on
both. A and A again differ: noise. A and B differ where neither does from itself: confirmed by more runs, and then
it is interference, a value that reached the client in some form. Unless it goes when both have their rows written anew:
plans and orders follow the room that rows take, which is a matter of time (and a channel THREATS.md speaks of).
"""

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .transcript import Session, difference, same_rows

# Relations as sqlsmith names them, and the first ones of FROM as everybody does.
RELATION = re.compile(r"\b(\w+\.\w+) as (?:ref|sample)_\d", re.I)
FIRST = re.compile(r"\b(?:from|join)\s+([a-z_][\w.]*)", re.I)
OF_CATALOGS = ("information_schema.", "pg_")
CONFIRMATIONS = 4
SAFE_ADMITTED_MIN = 0.95
NOISE_MAX = 0.02
REASONS_SHOWN = 8


def of_catalogs(unit):
    """In what order the catalogs stand is a matter of what was defined when, and no value of a user's table is in them."""
    names = {name.lower() for pattern in (RELATION, FIRST) for name in pattern.findall(unit.text())}
    return bool(names) and all(name.startswith(OF_CATALOGS) for name in names)


@dataclass
class Figures:
    """Of one source."""

    verdicts: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    noise: int = 0
    interferences: list = field(default_factory=list)

    @property
    def count(self):
        return self.verdicts.total()

    def share(self, verdict):
        return self.verdicts[verdict] / self.count if self.count else 0.0

    def line(self, name):
        verdicts = ", ".join(f"{number} {verdict}" for verdict, number in self.verdicts.most_common())
        return (
            f"{name}: {self.count} statements, {100 * self.share('admitted'):.1f} % admitted ({verdicts}), "
            f"{self.noise} noise, {len(self.interferences)} interferences"
        )


class Runner:
    def __init__(self, stack, tell, admitted):
        """`tell` is given every finding as it is made; `admitted` every unit that was let through, with what it gave."""
        self._tell, self._admitted, self._stack = tell, admitted, stack
        self.figures, self._more = {}, []
        self._both = ThreadPoolExecutor(max_workers=2)
        self._sessions = {
            world.name: [Session(lambda w=world, t=twin: stack.connect(w, t), stack.normal) for twin in (0, 1)]
            for world in stack.worlds
        }

    def run(self, world, unit):
        first, second = self._sessions[world.name]
        one, other = self._both.map(lambda session: session.run(unit), (first, second))
        again, other_again = self._both.map(lambda session: session.run(unit), (first, second))
        figures = self.figures.setdefault(unit.source, Figures())
        figures.verdicts[one.verdict] += 1
        if one.verdict != "admitted":
            figures.reasons[one.code] += 1
        if "timed out" in (one.verdict, other.verdict, again.verdict, other_again.verdict):
            return
        if one.verdict == "admitted":
            self._admitted(world, unit, one)
        if difference(one, again) is not None or difference(other, other_again) is not None:
            figures.noise += 1
        elif difference(one, other) is not None:
            self._confirm(world, unit, one, other)

    def _confirm(self, world, unit, one, other):
        """Something that varies by itself, or by connection, may agree with itself twice; not this often on new ones."""
        figures = self.figures[unit.source]
        first, second = self._sessions[world.name]
        for _ in range(CONFIRMATIONS):
            first.renew()
            second.renew()
            if difference(one, first.run(unit)) is not None or difference(other, second.run(unit)) is not None:
                figures.noise += 1
                return
        self._stack.align(world)
        first.renew()
        second.renew()
        aligned, other_aligned = first.run(unit), second.run(unit)
        if difference(aligned, other_aligned) is None or (of_catalogs(unit) and same_rows(aligned, other_aligned)):
            figures.noise += 1
            return
        figures.interferences.append(unit)
        self._tell(f"INTERFERENCE {world.name} {unit.source} {unit.mode} {unit.form}\n  {unit.text()}\n  {difference(one, other)}")

    def add_failures(self, words):
        self._more += words

    def failures(self):
        """What is not as it must be, in words."""
        found = [*self._more]
        found += [f"{name}: {len(one.interferences)} interferences" for name, one in self.figures.items() if one.interferences]
        total = sum(one.count for one in self.figures.values())
        noise = sum(one.noise for one in self.figures.values())
        if total == 0:
            found.append("no statement ran")
        elif noise > NOISE_MAX * total:
            found.append(f"noise of {100 * noise / total:.1f} % is more than {100 * NOISE_MAX:.0f} %: the comparison proves too little")
        safe = self.figures.get("safe")
        if safe is not None and safe.share("admitted") < SAFE_ADMITTED_MIN:
            found.append(
                f"{100 * safe.share('admitted'):.1f} % of the safe statements were admitted, less than "
                f"{100 * SAFE_ADMITTED_MIN:.0f} %: a gateway that refuses everything proves nothing"
            )
        return found

    def report(self):
        lines = []
        for name, one in sorted(self.figures.items()):
            lines.append(one.line(name))
            lines += [f"    {number:6}  {reason[:160]}" for reason, number in one.reasons.most_common(REASONS_SHOWN)]
        return lines
