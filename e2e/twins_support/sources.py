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
# When a server began, where it is reached, and how many transactions it has had: two servers never agree on it, be their databases equal to the
# last byte. How far its log is, what it found in its cache and what it changed in place stay in, for the gateway seals them.
OF_A_SERVER = re.compile(
    r"pg_postmaster_start_time|pg_conf_load_time|pg_stat_recovery_prefetch|stats_reset|txid_|pg_current_(snapshot|xact)|inet_(client|server)_",
    re.I,
)
SAMPLED = re.compile(r"tablesample\s+\w+\s*\([^)]*\)", re.I)
COPY_FROM = re.compile(r"\s*copy\b.*\bfrom\s+stdin.*;\s*$", re.I)
WORD = re.compile(r"[A-Za-z_]\w*")
MADE = re.compile(
    r"\s*create\s+(?:(?:or\s+replace|temp|temporary|unlogged|global|local|recursive|materialized)\s+)*"
    r"(?:table|view|type|domain|sequence)\s+(?:if\s+not\s+exists\s+)?([A-Za-z_]\w*)", re.I,
)
FILLED = re.compile(r"\s*insert\s+into\s+([A-Za-z_]\w*)", re.I)
STORY_OBJECTS_MAX, STORY_STEPS_MAX, STORY_INSERTS_MAX = 3, 8, 3
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
    """Statements of the server's regression tests, in a random order: each by itself, and where it speaks of what its file
    made before, behind that."""
    found = []
    for file in sorted(folder.glob("*.sql")):
        text = file.read_text(encoding="utf-8", errors="replace")
        statements = [sql for sql in split(without_client_parts(text)) if not LEFT_OUT.match(sql)]
        found += [(file.stem, [sql]) for sql in statements]
        found += [(file.stem, story) for story in stories(statements)]
    random.shuffle(found)
    found = found[:count] if count <= len(found) else [*found, *random.choices(found, k=count - len(found))]
    return [Unit("regress", story, mode=random.choice(MODES), form=name) for name, story in found]


def stories(statements):
    """Of each statement that speaks of objects the file has made: what made them, what filled them, and itself."""
    made, filled = {}, {}
    for sql in statements:
        creates, inserts = MADE.match(sql), FILLED.match(sql)
        words = {word.lower() for word in WORD.findall(sql)}
        before = [name for name in made if name in words and not (creates and creates[1].lower() == name)]
        needed = [step for name in before[:STORY_OBJECTS_MAX] for step in [*made[name], *filled.get(name, ())]]
        if needed:
            yield [*dict.fromkeys(needed), sql]
        if creates:
            made[creates[1].lower()] = [*dict.fromkeys([*needed, sql])][-STORY_STEPS_MAX:]
            filled.pop(creates[1].lower(), None)
        elif inserts and len(filled.setdefault(inserts[1].lower(), [])) < STORY_INSERTS_MAX:
            filled[inserts[1].lower()].append(sql)


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
