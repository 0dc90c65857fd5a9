#!/usr/bin/env python3
"""Checks that the modules of each crate do not depend on each other in a circle.

A module is a file. It depends on each file whose items it names, in a `use` or in a path. A name
that a module re-exports counts for the file that defines it. Tests are left out.

`cargo modules dependencies --acyclic` is no alternative: for it, a type whose method returns the
type is a circle, and the installation takes minutes. With a crate's name as argument, the script
prints its graph.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

NOISE = re.compile(
    r"//[^\n]*|/\*.*?\*/"
    r"|b?r(?P<hash>#*)\".*?\"(?P=hash)|b?\"(?:\\.|[^\"\\])*\""
    r"|b?'(?:\\(?:x..|u\{[^}]*\}|.)|[^'\\])'", re.DOTALL)
TEST = re.compile(r"#\[cfg\((?:test\b|all\(test\b|any\(test\b)[^\]]*\]")
PATH = re.compile(r"(?<![\w:])(?:::)?((?:[A-Za-z_]\w*)(?:\s*::\s*[A-Za-z_]\w*)*)(?=\s*(::)?)")
MODULE = re.compile(r"(?:#\[path = \"([^\"]+)\"\]\s*)?(?<![\w:])mod\s+(\w+)\s*(;|\{)")
USE = re.compile(r"(?<![\w:])(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);")


def block_end(text, start):
    """The index behind the item that starts here: behind its `;` or its closing brace."""
    depth = 0
    for at in range(start, len(text)):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
            if depth == 0 and text[at] == "}":
                return at + 1
        elif text[at] == ";" and depth == 0:
            return at + 1
    return len(text)


def clean(text):
    """The code without comments, literals and tests. The text of `#[path = ..]` is kept."""
    kept = lambda noise: noise[0] if text[: noise.start()].endswith("#[path = ") else " "
    code = NOISE.sub(kept, text)
    while test := TEST.search(code):
        start = test.end()
        while attribute := re.compile(r"\s*#\[[^\]]*\]").match(code, start):
            start = attribute.end()
        code = code[: test.start()] + code[block_end(code, start):]
    return code


def trees(tree, prefix=()):
    """The paths of a use tree, each with the name that it binds."""
    tree = tree.strip()
    head, brace, rest = tree.partition("{")
    if brace:
        prefix += tuple(part.strip() for part in head.split("::") if part.strip())
        depth, start, inner = 0, 0, rest.rstrip()[:-1] + ","
        for at, letter in enumerate(inner):
            depth += (letter == "{") - (letter == "}")
            if letter == "," and depth == 0:
                if inner[start:at].strip():
                    yield from trees(inner[start:at], prefix)
                start = at + 1
        return
    path, _, name = tree.partition(" as ")
    path = prefix + tuple(part.strip() for part in path.split("::") if part.strip())
    if path and path[-1] == "self":
        path = path[:-1]
    if path:
        yield path, name.strip() or path[-1]


class Crate:
    def __init__(self, root):
        self.files, self.code, self.children = {}, {}, {}
        self.exports, self.globs = {}, {}
        self.load((), root, root.parent)

    def load(self, module, file, directory):
        self.add(module, file, directory, clean(file.read_text()))

    def add(self, module, file, directory, code):
        self.files[module] = file
        self.children[module] = set()
        at = 0
        while declared := MODULE.search(code, at):
            path, name, end = declared.groups()
            child = (*module, name)
            at = declared.end()
            if end == "{":
                stop = block_end(code, declared.end() - 1)
                inner = code[declared.end(): stop - 1]
                code = code[: declared.start()] + code[stop:]
                at = declared.start()
                self.children[module].add(name)
                self.add(child, file, directory / name, inner)
                continue
            candidates = [file.parent / path] if path else [
                directory / f"{name}.rs", directory / name / "mod.rs"]
            source = next((each for each in candidates if each.is_file()), None)
            if source:
                self.children[module].add(name)
                self.load(child, source, directory / name if not path else source.parent / name)
        self.code[module] = code
        self.exports[module], self.globs[module] = {}, []
        for _, tree in USE.findall(code):
            for path, name in trees(tree):
                if name == "*":
                    self.globs[module].append(path[:-1])
                elif name != "_":
                    self.exports[module][name] = path

    def resolve(self, module, path, seen=frozenset()):
        """The module that defines what a path in a module names, or None for another crate."""
        if (module, path) in seen:
            return None
        seen |= {(module, path)}
        at, rest, anchored = module, path, False
        while rest and rest[0] in ("crate", "self", "super"):
            at = {"crate": (), "self": at, "super": at[:-1]}[rest[0]]
            rest, anchored = rest[1:], True
        if not anchored and rest[0] not in self.children[at]:
            return None
        while rest and rest[0] in self.children[at]:
            at, rest = (*at, rest[0]), rest[1:]
        if rest and rest[0] in self.exports[at]:
            found = self.resolve(at, self.exports[at][rest[0]] + rest[1:], seen)
            return found
        return at

    def edges(self):
        """For each file the files that it depends on."""
        graph = {file: set() for file in self.files.values()}
        for module, code in self.code.items():
            paths = {path for _, tree in USE.findall(code) for path, _ in trees(tree)}
            paths |= {tuple(re.split(r"\s*::\s*", found[1]))
                      for found in PATH.finditer(USE.sub(" ", code)) if "::" in found[1]}
            for path in paths:
                if path[-1] == "*":
                    path = path[:-1]
                found = self.resolve(module, path) if path else None
                if found is not None and self.files[found] != self.files[module]:
                    graph[self.files[module]].add(self.files[found])
        return graph


def circle(graph):
    """A shortest circle of the graph, or None."""
    best = None
    for start in sorted(graph):
        previous, queue = {start: None}, [start]
        for at in queue:
            if best and len(path_to(previous, at)) >= len(best):
                break
            if start in graph[at]:
                best = path_to(previous, at)
                break
            for following in sorted(graph[at] - previous.keys()):
                previous[following] = at
                queue.append(following)
    return best


def path_to(previous, at):
    path = []
    while at:
        path.append(at)
        at = previous[at]
    return path[::-1]


def groups(graph):
    """The sets of files that depend on each other."""
    reach = {}
    for start in graph:
        seen, queue = set(), [start]
        for at in queue:
            fresh = graph[at] - seen
            seen |= fresh
            queue += fresh
        reach[start] = seen
    found = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted(found, key=sorted)


def main():
    errors, count = 0, 0
    for source in sorted((ROOT / "crates").glob("*/src")):
        crate = source.parent.name
        for root in [source / "lib.rs", source / "main.rs"]:
            if not root.is_file():
                continue
            graph = Crate(root).edges()
            count += len(graph)
            if crate in sys.argv[1:]:
                for file in sorted(graph):
                    names = sorted(str(each.relative_to(source)) for each in graph[file])
                    print(f"{file.relative_to(source)}: {' '.join(names)}")
            for group in groups(graph):
                inner = {file: graph[file] & group for file in group}
                names = [str(file.relative_to(source)) for file in circle(inner)]
                print(f"error: {crate}: {' -> '.join([*names, names[0]])}"
                      f" ({len(group)} files depend on each other)", file=sys.stderr)
                errors += 1
    if errors:
        sys.exit(1)
    print(f"no circles among {count} modules")


main()
