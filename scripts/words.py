#!/usr/bin/env python3
"""Checks that retired words stay retired: in names, comments, messages and pages.

The list has the words that a search finds without false alarms. It also checks that the lines of
pages have at most 100 columns, except code, table rows, images and link definitions.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

KINDS = (".md", ".py", ".rs", ".sh", ".toml", "run", "Makefile")

# The left side is a regular expression for whole words, also for those within a snake_case name.
# The right side says what to write.
RETIRED = {
    r"[Oo]urs|[Tt]heirs": "the host's, the guest's, the agent's, metaservice",
    r"[Tt]he ones? who|[Ww]ho(?:so)?ever": "say who: the client, the agent, the user",
    r"[Nn]obody|[Ee]verybody": "say who: no client, each process of the guest",
    r"(?:is|are|was|were) told": "gets, reads, is informed",
    r"(?:goes|go|went|gone|going) on": "continues; for a machine: is restored",
    r"(?:saved|continued) machines?": "snapshot",
    r"[Ww]hat (?:it|they) ha(?:s|ve)": "say what",
    r"[Ll]og drains?": "log sink",
    r"[Pp]atience|PATIENCE|[Ff]arewell|FAREWELL": "timeout",
    r"[Bb]ounds?|BOUNDS?|unbounded": "limit, target, timeout",
    r"folders?": "directory",
    r"[Dd]ialects?": "stream protocol v1, v2",
    r"[Oo]rphan(?:s|ed)?": "stale connection",
    r"[Ll]edgers?": "state directory",
    r"[Nn]ursery|[Uu]nborn|[Tt]amer|[Tt]amed?": "fork server, supervisor, sanitize",
    r"[Aa]dmit(?:s|ted)?": "session, authorization",
}
WORDS = {re.compile(rf"(?<![A-Za-z])(?:{word})(?![A-Za-z])"): instead
         for word, instead in RETIRED.items()}
# What is no word of the text: names of tests in pages, names of the protocol and of libraries, old
# names of options, and names of crates/ that are not renamed yet.
NAMES = re.compile(
    r"`[a-z0-9]+(?:_[a-z0-9]+){3,}`|`bounds(?:\.rs)?`|`crates/[a-z/.]+`"
    r"|list-folder|list_folder|not-a-folder|[`\"]folder[`\"]|log_drain|[Uu]nbounded_?\w+"
    r"|alias = \"bound\"|\"bound\": name|OptionalActions::Drain|\"farewell\"|farewell=9|ledger\.json|--bound=|`--bound`|`farewell`"
    r"|temporary_folder|\bBounds\b|\.bounds\(|bounds::list"
    r"|nobody:x:65534:65534:nobody"
)


def files():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        # The list itself has each of the words.
        if name != "scripts/words.py" and name.endswith(KINDS) and (ROOT / name).is_file():
            yield name


def problems(name):
    code = False
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        code ^= line.startswith("```")
        where = f"{name}:{number}"
        for word, instead in WORDS.items():
            for found in word.finditer(NAMES.sub("", line)):
                yield f"{where}: '{found[0]}' is retired: {instead}"
        free = code or line.startswith(("|", "![", "    ", "[", "```"))
        if name.endswith(".md") and not free and len(line) > 100:
            yield f"{where}: {len(line)} columns"


def main():
    errors = [error for name in files() for error in problems(name)]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(bool(errors))


main()
