#!/usr/bin/env python3
"""Checks the relative links and anchors of the Markdown pages.

A page of docs/ must link to pages of docs/ only, because the book has no others, and each page
must be in docs/SUMMARY.md.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FRAGMENTS = DOCS / "performance" / "notes"  # parts of docs/performance.md
PAGES = [ROOT / f"{name}.md" for name in
         ("README", "CONTRIBUTING", "SECURITY", "ARCHITECTURE", "CHANGELOG")]

LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
DEFINITION = re.compile(r"^\[([^\]]+)\]:\s*(\S+)", re.MULTILINE)
HTML = re.compile(r"(?:src|href)=\"([^\"]+)\"")


def prose(page):
    """The text of a page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", lambda code: "`" * len(code[0]), text)


def anchors(page):
    """The anchors of the headings, as both GitHub and mdBook make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    seen = {}
    for title in re.findall(r"^#+\s+(.*?)\s*#*$", text, flags=re.MULTILINE):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = "".join("-" if c == " " else c for c in title if c.isalnum() or c in " -_")
        count = seen[anchor] = seen.get(anchor, -1) + 1
        yield f"{anchor}-{count}" if count else anchor


def problem(page, link):
    """What is wrong with a link, or None."""
    if re.match(r"[a-z]+:", link):
        return None
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return "no such file"
    if page.is_relative_to(DOCS) and not target.is_relative_to(DOCS):
        return "a page of docs/ must not link to a file outside of it"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target)):
        return "no such anchor"
    return None


def main():
    pages = PAGES + sorted(p for p in DOCS.rglob("*.md") if FRAGMENTS not in p.parents)
    count, errors = 0, []
    for page in pages:
        text = prose(page)
        links = LINK.findall(text) + HTML.findall(text)
        links += [target for _, target in DEFINITION.findall(text)]
        count += len(links)
        for link in links:
            reason = problem(page, link)
            if reason:
                errors.append(f"{page.relative_to(ROOT)}: {link}: {reason}")
    summary = DOCS / "SUMMARY.md"
    listed = {(DOCS / link).resolve() for link in LINK.findall(prose(summary))}
    for page in pages:
        if page.is_relative_to(DOCS) and page != summary and page not in listed:
            errors.append(f"{page.relative_to(ROOT)}: not in docs/SUMMARY.md")
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    if errors:
        sys.exit(1)
    print(f"{count} links in {len(pages)} pages lead somewhere")


main()
