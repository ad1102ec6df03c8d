"""What a client got, from the bytes of its connection and from the record, to be held against each other."""

import json
import subprocess

from .gateway import binary


def messages(stream, whole=True):
    """(tag, whole message) of each message of a server's stream. Unless it is `whole`, it may end inside one."""
    found, at = [], 0
    while at + 5 <= len(stream):
        end = at + 1 + int.from_bytes(stream[at + 1 : at + 5], "big")
        if end > len(stream) and not whole:
            return found
        found.append((chr(stream[at]), stream[at:end]))
        at = end
    assert at == len(stream) or not whole, "the stream ends inside a message"
    return found


def behind_login(stream, whole=True):
    """From the first ReadyForQuery on."""
    at = 0
    for tag, message in messages(stream, whole):
        at += len(message)
        if tag == "Z":
            return stream[at:]
    return b""


def replay(gateway, session, *options, data=None):
    where = ["--config", str(gateway.config_file), *(["--data", str(data)] if data else [])]
    return subprocess.run([binary(), "sessions", "replay", session, *where, *options], capture_output=True, timeout=120, check=False)


def replayed_events(gateway, session):
    done = replay(gateway, session, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]
