#!/usr/bin/env python3
"""Checks that retired words stay retired: in names, comments, messages and pages.

The list has the words that a search finds without false alarms. It also checks that the lines of
pages have at most 100 columns, except code, table rows, images and link definitions.
With --all, it checks the paths that are not clean yet too.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Checked: files and directories. Add a path when it is clean, and remove it from UNCHECKED.
CHECKED = """
    .ci .config Cargo.toml Makefile CONTRIBUTING.md SECURITY.md bench book.toml clippy.toml deny.toml
    examples fuzz rustfmt.toml scripts
    docs/SUMMARY.md docs/cloud.md docs/how-to docs/images.md docs/performance
    docs/performance.md docs/tutorial.md
""".split()
UNCHECKED = """
    ARCHITECTURE.md CHANGELOG.md README.md crates docs/control.md docs/guarantees.md
    docs/protocol.md docs/reference docs/threat-model.md
""".split()
KINDS = (".md", ".py", ".rs", ".sh", ".toml", "run", "Makefile")

# The left side is a regular expression, the right side says what to write.
RETIRED = {
    r"\b(?:ours|theirs)\b|\bOurs\b": "the host's, the guest's, the agent's, metaservice",
    r"\bthe ones? who\b|\bwho(?:so)?ever\b": "say who: the client, the agent, the user",
    r"\bnobody\b|\beverybody\b": "say who: no client, each process of the guest",
    r"\b(?:is|are|was|were) told\b": "gets, reads, is informed",
    r"\b(?:goes|go|went|gone|going) on\b": "continues; for a machine: is restored",
    r"\b(?:saved|continued) machines?\b": "snapshot",
    r"\bwhat (?:it|they) ha(?:s|ve)\b": "say what",
    r"\bdrains?\b(?!\()|\bDrain\b": "log sink",
    r"\bpatience\b|PATIENCE|\bfarewell\b": "timeout",
    r"\bbounds?\b|\bBounds?\b|\bunbounded\b": "limit, target, timeout",
    r"\bfolders?\b": "directory",
    r"\bdialects?\b|\bDialect\b": "stream protocol v1, v2",
    r"\borphan(?:s|ed)?\b": "stale connection",
    r"\bledgers?\b": "state directory",
    r"\b(?:nursery|unborn|tamer|tamed?)\b": "fork server, supervisor, sanitize",
    r"\badmit(?:s|ted)?\b": "session, authorization",
}
# Names of the protocol, of version 1 and of Rust's library; then names of crates/ that are not
# renamed yet.
NAMES = re.compile(
    r"list-folder|list_folder|log_drain|[Uu]nbounded_?\w+"
    r"|temporary_folder|\bBounds\b|\.bounds\(|\bDialect\b"
)


def files():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        if name.endswith(KINDS) and (ROOT / name).is_file():
            yield name


def under(name, paths):
    return any(name == path or name.startswith(path + "/") for path in paths)


def problems(name):
    code = False
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        code ^= line.startswith("```")
        where = f"{name}:{number}"
        for word, instead in RETIRED.items():
            for found in re.finditer(word, NAMES.sub("", line)):
                yield f"{where}: '{found[0]}' is retired: {instead}"
        free = code or line.startswith(("|", "![", "    ", "[", "```"))
        if name.endswith(".md") and not free and len(line) > 100:
            yield f"{where}: {len(line)} columns"


def main():
    errors, skipped = [], 0
    for name in files():
        if name == "scripts/words.py":
            continue
        if under(name, CHECKED) or under(name, UNCHECKED) and "--all" in sys.argv:
            errors += problems(name)
        elif under(name, UNCHECKED):
            skipped += 1
        else:
            errors.append(f"{name}: in neither list of scripts/words.py")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if skipped:
        print(f"words: {skipped} files are not checked yet: {' '.join(UNCHECKED)}")
    sys.exit(bool(errors))


main()
