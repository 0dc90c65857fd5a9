#!/usr/bin/env python3
"""Checks that each test that docs/guarantees.md names exists.

A name in the page is a test function, or a file or directory of tests without its extension.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = "docs/guarantees.md"


def main():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "crates"], cwd=ROOT,
                            check=True, capture_output=True, text=True).stdout.split()
    sources = [ROOT / name for name in listed if name.endswith(".rs") and (ROOT / name).is_file()]
    functions = set()
    for source in sources:
        functions |= set(re.findall(r"\bfn (\w+)\(", source.read_text()))
    files = {str(source.relative_to(ROOT).with_suffix("")) for source in sources}
    files |= {str(parent) for file in files for parent in Path(file).parents}

    count, errors = 0, []
    for paragraph in (ROOT / PAGE).read_text().split("\n\n"):
        if not re.match(r"Tests?: ", paragraph):
            continue
        for name in re.findall(r"`([^`]+)`", paragraph):
            count += 1
            file = name.removesuffix(".rs")
            if name not in functions and not any(f"/{path}".endswith(f"/{file}") for path in files):
                errors.append(f"{PAGE}: no such test: {name}")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        sys.exit(1)
    print(f"{count} tests of {PAGE} exist")


main()
