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
    .ci .config ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md Cargo.toml Makefile README.md SECURITY.md
    bench book.toml clippy.toml deny.toml
    crates/metaservice crates/metaservice-cli/setup.sh crates/metaservice-cli/src
    crates/metaservice-cli/Cargo.toml crates/metaservice-sandbox/build.rs crates/metaservice-sandbox/src
    crates/metaservice-sandbox/Cargo.toml crates/metaservice-testing
    crates/metaservice-archive crates/metaservice-egress crates/metaservice-fleet crates/metaservice-gateway
    crates/metaservice-guest crates/metaservice-image
    crates/metaservice-nic crates/metaservice-private crates/metaservice-protocol
    crates/metaservice-qemu
    examples fuzz rustfmt.toml scripts
    docs/SUMMARY.md docs/adding-an-action.md docs/cloud.md docs/control.md docs/guarantees.md
    docs/how-to docs/images.md docs/network-threat-model.md
    docs/performance docs/performance.md docs/protocol.md docs/reference docs/threat-model.md
    docs/testing.md docs/tutorial.md
""".split()
UNCHECKED = """
    crates
""".split()
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
        if name.endswith(KINDS) and (ROOT / name).is_file():
            yield name


def under(name, paths):
    return any(name == path or name.startswith(path + "/") for path in paths)


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
