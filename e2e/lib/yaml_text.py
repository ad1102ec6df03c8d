"""Writes plain dicts, lists and scalars as the YAML a person would write. Writing only; nothing here reads YAML."""

import json


def dump(value, indent=0):
    """Mappings in block style; lists and scalars in flow style, which JSON is a part of."""
    pad = "  " * indent
    lines = []
    for key, item in value.items():
        name = key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)
        if isinstance(item, dict) and item:
            lines += [f"{pad}{name}:", dump(item, indent + 1).rstrip("\n")]
        elif isinstance(item, list) and item and all(isinstance(entry, dict) for entry in item):
            lines += [f"{pad}{name}:", *(f"{pad}  - {json.dumps(entry)}" for entry in item)]
        else:
            lines.append(f"{pad}{name}: {json.dumps(str(item) if not isinstance(item, _PLAIN) else item)}")
    return "\n".join(lines) + "\n"


_PLAIN = (str, int, float, bool, list, dict, type(None))
