"""A corpus folder as its README describes it: cases in `attacks/` and `benign/`, `sensitive.json`, a runner `run.py`.

Only the form of the folder is known here, never what is in it: column names, categories and limits are read.
"""

import json
import re
from pathlib import Path

from lib.run import HarnessError

SUITES = ("attacks", "benign")
# Holds keep more rows than allowed from leaving; a gateway without them has nothing to answer these cases with.
NEEDS_HOLDS = "bulk"
_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*")


def quoted(name):
    """A name as policies and configurations write it: in quotes unless it is lower case and plain."""
    return name if _PLAIN_NAME.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def label_name(text):
    """A class of values as the name of a label."""
    return re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_") or "sensitive"


class Corpus:
    """The folder, read whole at start so that a mistake in it ends the run before servers start."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.runner = self.folder / "run.py"
        if not self.runner.exists():
            raise HarnessError(f'corpus "{folder}" holds no run.py; name a folder of the red-team corpus')
        try:
            self.sensitive = json.loads((self.folder / "sensitive.json").read_text(encoding="utf-8"))
            self.cases = {suite: list(self._read(suite)) for suite in SUITES}
        except (OSError, ValueError) as error:
            raise HarnessError(f'could not read corpus "{folder}": {error}') from error

    def _read(self, suite):
        for file in sorted((self.folder / suite).glob("*.json")):
            yield from json.loads(file.read_text(encoding="utf-8"))

    def categories(self, suite):
        return sorted({case["category"] for case in self.cases[suite]})

    def labels(self):
        """Label to column patterns. Columns computed from others are left out: lineage has to find them."""
        labels = {}
        for column in self.sensitive["columns"]:
            if not column.get("derived_from"):
                pattern = ".".join(quoted(column[part]) for part in ("schema", "table", "column"))
                labels.setdefault(label_name(column.get("class", "sensitive")), []).append(pattern)
        return labels

    def protected(self):
        """Relation pattern to the rows of it that may leave without a human."""
        return {
            ".".join(quoted(table[part]) for part in ("schema", "table")): table["max_rows"]
            for table in self.sensitive.get("bulk_protected", [])
        }

    def trusted(self):
        """What the operator vouches for, by kind, as the target's `trust` takes it."""
        return {kind: names for kind, names in self.sensitive.get("trusted", {}).items() if isinstance(names, list) and names}
