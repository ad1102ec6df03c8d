"""The principals and the policy of the tests, and what each principal must see."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.yaml_text import dump  # noqa: E402

REDACTED = "[redacted by exeat]"
SEATS = 10
# Ten principals, ten different views of the same three columns.
SEAT_MASKS = [
    {"ssn": {"with": "redact"}},
    {"ssn": {"with": "nullify"}},
    {"ssn": {"with": "partial", "last": 4}},
    {"ssn": {"with": "partial", "last": 2}},
    {"ssn": {"with": "partial", "first": 3}},
    {"email": {"with": "redact"}},
    {"email": {"with": "nullify"}, "ssn": {"with": "redact"}},
    {"email": {"with": "redact"}, "phone": {"with": "nullify"}},
    {"phone": {"with": "redact"}, "ssn": {"with": "partial", "last": 1}},
    {"email": {"with": "nullify"}, "phone": {"with": "redact"}, "ssn": {"with": "nullify"}},
]
assert len(SEAT_MASKS) == SEATS and len({str(masks) for masks in SEAT_MASKS}) == SEATS

CLIENTS = {
    "agent-7": {"groups": ["agents"]},
    "dana": {"groups": ["dpo"]},
    "stranger": {"groups": ["visitors"]},
    "brief": {"groups": ["agents"], "seconds": 1},
    **{f"seat-{seat}": {"groups": ["seats", f"seat-{seat}"]} for seat in range(SEATS)},
}

LABELS = {
    "email": ["public.customers.email"],
    "ssn": ["public.customers.ssn"],
    "phone": ["public.customers.phone"],
    "birth_date": ["public.customers.birth_date"],
    "card": ["public.payments.card_number"],
}
AGENT_MASKS = {
    "email": {"with": "redact"},
    "ssn": {"with": "partial", "last": 4},
    "phone": {"with": "redact"},
    "birth_date": {"with": "nullify"},
    "card": {"with": "partial", "last": 4},
}


def policy(agent_masks=None, more=()):
    rules = [
        {"id": "readers", "who": {"groups": ["agents", "dpo", "seats"]}, "target": "shop", "allow": ["read"]},
        {"id": "mask-agents", "who": {"groups": ["agents"]}, "target": "shop", "mask": agent_masks or AGENT_MASKS},
        {
            "id": "no-payroll", "target": "shop", "deny": True, "relations": ["hr.*"],
            "reason": "payroll is not for agents; ask the people team",
        },
        *(
            {"id": f"mask-seat-{seat}", "who": {"groups": [f"seat-{seat}"]}, "target": "shop", "mask": masks}
            for seat, masks in enumerate(SEAT_MASKS)
        ),
        *more,
    ]
    return dump({"version": 1, "labels": {"shop": LABELS}, "rules": rules})


POLICY = policy()


def assert_masked(value, original, mask):
    """`value` is what this mask makes of `original` (text); NULL stays NULL."""
    if original is None or mask["with"] == "nullify":
        assert value is None
    elif mask["with"] == "redact":
        assert value == REDACTED
    else:
        first, last = mask.get("first", 0), mask.get("last", 0)
        assert value != original and value.startswith(original[:first]) and value.endswith(original[len(original) - last:])
        # What is hidden shows nothing of the original, neither in place nor elsewhere.
        hidden = value[first:len(value) - last] if last else value[first:]
        assert hidden and not any(character.isdigit() for character in hidden), value


def assert_agent_customer(row, original):
    """A row of customers as the agent must see it: sealed columns masked, the others untouched."""
    for column, value in row.items():
        if column == "birth_date":
            assert value is None
        elif column in AGENT_MASKS:
            assert_masked(value, original[column], AGENT_MASKS[column])
        else:
            assert value == original[column], column
