#!/usr/bin/env python3
"""Checks that the tests which docs/guarantees.md names exist.

A test is a function, as `a_log_is_whole`, or a module, as `pair/log` or `store`.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guarantees.md"


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "crates/*.rs"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    sources = {path: (ROOT / path).read_text() for path in listed if (ROOT / path).is_file()}
    functions = {name: path for path, text in sources.items()
                 for name in re.findall(r"\bfn (\w+)\(", text)}
    text = PAGE.read_text()
    errors = []
    named = re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+){3,})`", text)
    errors += [f"there is no test {name}" for name in named if name not in functions]
    # `module`: `function`, `function`
    for module, rest in re.findall(r"`([a-z][a-z_/]*)(?:\.rs)?`:\s+((?:`\w+`(?:,\s+|\s+and\s+)?)+)", text):
        for name in re.findall(r"`(\w+)`", rest):
            path = functions.get(name, "")
            if path and not re.search(rf"/{module}(?:\.rs|/|_tests\.rs)", path):
                errors.append(f"{name} is not in {module}: it is in {path}")
    for error in errors:
        print(f"error: {PAGE.relative_to(ROOT)}: {error}", file=sys.stderr)
    if errors or not named:
        sys.exit(1)
    print(f"docs/guarantees.md names {len(named)} tests, and they exist")


main()
