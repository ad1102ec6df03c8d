"""The lines of a gateway's log, of one that runs too."""

import json


def lines(data_dir, log="log"):
    """As they stand, in order; without one that is being written. Retention may take a file meanwhile."""
    found = []
    for path in sorted((data_dir / log).iterdir()):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return lines(data_dir, log)
        found += content[: content.rfind(b"\n") + 1].decode().split("\n")[:-1]
    return found


def events(data_dir, kind=None, log="log"):
    """The same as they parse, all or those of one type."""
    found = [json.loads(line) for line in lines(data_dir, log)]
    return [event for event in found if kind in (None, event["type"])]
