"""Reads spec/vectors: what the checks of the dissector, the grammar and the Python client share."""

import json
import pathlib

DIRECTORY = pathlib.Path(__file__).parent / "vectors"


def load(kind):
    """All vectors of a kind ("packets", "digests", "divisions", "sessions"), whatever the files are called."""
    found = []
    for path in sorted(DIRECTORY.glob("*.json")):
        file = json.loads(path.read_text(encoding="utf-8"))
        if file.get("kind") == kind:
            found.extend(file["vectors"])
    return found


def octets(vector):
    """The bytes of whatever has a member hex or formula; none where it has neither."""
    if "hex" in vector:
        return bytes.fromhex(vector["hex"])
    return expand(vector.get("formula", []))


def expand(formula):
    parts = []
    for part in formula:
        if "hex" in part:
            parts.append(bytes.fromhex(part["hex"]))
        elif "repeat" in part:
            parts.append(bytes.fromhex(part["repeat"]) * part["times"])
        else:
            parts.append(bytes((part["start"] + i * part["step"]) % 256 for i in range(part["count"])))
    return b"".join(parts)
