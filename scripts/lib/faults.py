# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The planted faults of tests/mutants, for scripts/mutants and scripts/gpu_mutants."""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LISTS = ROOT / "tests/mutants"
FIELDS = {"name", "file", "old", "new", "test_file", "test"}


class Wrong(Exception):
    pass


def read_list(name):
    path = LISTS / name
    if not path.exists():
        return []
    mutants = json.loads(path.read_text())["mutants"]
    for m in mutants:
        if set(m) != FIELDS:
            raise Wrong(f"{name}: {m.get('name')}: the fields must be {sorted(FIELDS)}")
    return mutants


def mutated(m):
    """The header's text with the fault."""
    path = ROOT / "include/bi" / m["file"]
    text = path.read_text()
    count = text.count(m["old"])
    if count != 1:
        raise Wrong(f"{m['name']}: its old text stands {count} times in {m['file']}, and must once")
    if m["old"] == m["new"]:
        raise Wrong(f"{m['name']}: changes nothing")
    tests = ROOT / m["test_file"]
    if not tests.exists():
        raise Wrong(f"{m['name']}: there is no {m['test_file']}")
    # Cases of a template carry their type.
    names = () if m["test"] is None else (m["test"], m["test"].rsplit(" - ", 1)[0])
    if names and not any(f'"{n}"' in tests.read_text() for n in names):
        raise Wrong(f"{m['name']}: {m['test_file']} has no test \"{m['test']}\"")
    return text.replace(m["old"], m["new"])


def plant(m, directory):
    to = pathlib.Path(directory) / "bi" / m["file"]
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(mutated(m))


def entry(m, killed):
    by = f"{m['test_file']}: {m['test'] or 'static_assert'}"
    return {"name": m["name"], "killed": killed, "by": by if killed else None}


def write_kills(path, entries):
    lines = ",\n".join(json.dumps(e) for e in entries)
    path.write_text('{"mutants": [\n' + lines + "\n]}\n")
