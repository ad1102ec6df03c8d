"""Statements that are not ours: what sqlsmith generates over a twin, and PostgreSQL's own regression tests."""

import re
import shutil
import subprocess

from lib.run import HarnessError, say

from .transcript import MODES, Unit

SQLSMITH_SECONDS_MAX = 300
# They would end the transaction everything is undone with, or the session; the rest runs as it stands.
LEFT_OUT = re.compile(
    r"(begin|start|commit|end|rollback|abort|prepare\s+transaction|reset\s+(all|session)|set\s+(session\s+)?role|vacuum|"
    r"create\s+(database|tablespace|role|user|group)|drop\s+(database|tablespace|role|user|group|owned)|discard|checkpoint|"
    r"set\s+(local\s+|session\s+)?statement_timeout)\b", re.I,
)
PIECE = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?:\b[eE])?'(?:[^'\\]|''|\\.)*'|\"(?:[^\"]|\"\")*\"|(\$(?:[A-Za-z_]\w*)?\$).*?\1|;|[^'\"$;/-]+|.", re.S,
)
# When a server began, which two of them never do at once.
OF_A_SERVER = re.compile(r"pg_postmaster_start_time|pg_conf_load_time|pg_stat_recovery_prefetch|stats_reset", re.I)
SAMPLED = re.compile(r"tablesample\s+\w+\s*\([^)]*\)", re.I)
COPY_FROM = re.compile(r"\s*copy\b.*\bfrom\s+stdin.*;\s*$", re.I)
CLIENT_COMMAND = re.compile(r"\\[a-zA-Z;].*$")


def sqlsmith(random, world, dsn, count):
    """`count` statements, half of them without the system catalogs; none where the program is not installed. It samples
    most tables, which hides everything else behind one refusal: half of the statements go without that."""
    program = shutil.which("sqlsmith")
    if program is None:
        say("left out: sqlsmith is not installed; install the package of that name")
        return []
    found = []
    for options in (["--exclude-catalog"], []):
        command = [program, f"--target={dsn.text()}", "--dry-run", f"--seed={random.randrange(1 << 30)}"]
        command += [f"--max-queries={(count + 1) // 2}", *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SQLSMITH_SECONDS_MAX, check=False)
        except subprocess.TimeoutExpired as error:
            raise HarnessError(f"sqlsmith: not done within {SQLSMITH_SECONDS_MAX} s") from error
        found += [sql for sql in split(done.stdout) if sql and not OF_A_SERVER.search(sql)]
    found = [SAMPLED.sub("", sql) if random.random() < 0.5 else sql for sql in found[:count]]
    return [Unit("sqlsmith", [sql], mode=random.choice(MODES), form=world.name) for sql in found]


def regression(random, folder, count):
    """Statements of the server's regression tests, in a random order."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        text = file.read_text(encoding="utf-8", errors="replace")
        found += [(file.stem, sql) for sql in split(without_client_parts(text)) if not LEFT_OUT.match(sql)]
    random.shuffle(found)
    return [Unit("regress", [sql], mode=random.choice(MODES), form=name) for name, sql in found[:count]]


def without_client_parts(text):
    """psql's own commands, and rows that follow a COPY from the client, are no SQL."""
    lines, in_copy = [], False
    for line in text.splitlines():
        if in_copy:
            in_copy = line != "\\."
            continue
        in_copy = COPY_FROM.match(line) is not None
        lines.append(CLIENT_COMMAND.sub(";" if not line.startswith("\\") else "", line))
    return "\n".join(lines)


def split(text):
    """The statements of a script, without their semicolons."""
    statements, current = [], []
    for piece in PIECE.finditer(text):
        if piece[0] == ";":
            statements.append("".join(current).strip())
            current = []
        elif not piece[0].startswith(("--", "/*")):
            current.append(piece[0])
    return [sql for sql in statements if sql]
