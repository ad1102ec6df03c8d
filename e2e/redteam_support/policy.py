"""The policy and target options that a corpus asks for, as far as this gateway knows them.

What the gateway does not have yet is left out one by one, each said: `exeat check` decides, so that a part counts from
the day it is built. What it can enforce is never left out.
"""

import subprocess

from lib.gateway import binary
from lib.run import HarnessError, say
from lib.yaml_text import dump

TARGET = "redteam"
GROUP = "agents"
ALLOWED = ["read", "insert", "update", "delete", "merge", "copy_in", "ddl", "call"]
# Nobody approves during the run: a hold is waited for as briefly as it can be.
HOLD = {"approvers": {"groups": ["data-owners"]}, "wait": "1s"}


def rules(corpus, holds):
    """Reads and writes allowed, every label redacted; with `holds`, bulk reads of protected tables wait for a human."""
    labels = corpus.labels()
    found = [
        {"id": "agents", "who": {"groups": [GROUP]}, "target": TARGET, "allow": ALLOWED},
        {"id": "seal", "target": TARGET, "mask": {label: {"with": "redact"} for label in labels}},
    ]
    if holds:
        for number, (relation, rows) in enumerate(corpus.protected().items(), 1):
            hold = {"rows": rows, **HOLD}
            found.append({"id": f"bulk-{number}", "target": TARGET, "relations": [relation], "hold": hold})
    return found


def text(corpus, holds):
    return dump({"version": 1, "labels": {TARGET: corpus.labels()}, "rules": rules(corpus, holds)})


def check(gateway):
    """Why `exeat check` refuses what is written now, or None."""
    gateway.write_config()
    done = subprocess.run(
        [binary(), "check", "--config", gateway.config_file], cwd=gateway.folder, capture_output=True, text=True, check=False,
    )
    return None if done.returncode == 0 else done.stderr.strip()


def equip(gateway, corpus):
    """Writes policy and target options; returns whether the gateway can hold."""
    gateway.policy(text(corpus, holds=False))
    refused = check(gateway)
    if refused is not None:
        raise HarnessError(f"the gateway does not take the corpus's policy:\n{refused}")
    options = gateway.config["targets"][TARGET]["postgres"]
    if corpus.trusted():
        options["trust"] = corpus.trusted()
        if _left_out(gateway, "the target's `trust`"):
            del options["trust"]
    if not corpus.protected():
        return True
    gateway.policy(text(corpus, holds=True))
    if _left_out(gateway, "the policy's `hold`"):
        gateway.policy(text(corpus, holds=False))
        return False
    return True


def _left_out(gateway, part):
    refused = check(gateway)
    if refused is not None:
        say(f"left out: {part}: {refused.splitlines()[0]}")
    return refused is not None
