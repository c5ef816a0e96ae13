#!/usr/bin/env python3
"""Fails where top-level modules of a crate form a cycle.

    make arrows     # or: tools/module_cycles.py [--layers] [CRATE...]

A top-level module is a file or a folder directly in `CRATE/src`. It depends on another one whose name stands in a `use crate::…`, a
`crate::…` or a `super::…` that leaves the module; a name that `lib.rs` re-exports counts as the module it comes from. Tests in
the sources (`#[cfg(test)]`) may use what they like.

With --layers it prints the modules of each crate by layers: a module uses only modules of the lines below its own.
"""

import re
import sys
from pathlib import Path

CRATES = ["schemas", "pipeline", "report", "models", "jobs"]

TOKEN = re.compile(
    r"""
    //[^\n]*                                  # comments
  | /\*.*?\*/
  | b?r(?P<hashes>\#*)".*?"(?P=hashes)        # strings
  | b?"(?:\\.|[^"\\])*"
  | b?'(?:\\.[^']*|[^'\\])'                   # characters, not lifetimes
    """,
    re.VERBOSE | re.DOTALL,
)
TEST_ONLY = re.compile(r"#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))?\s+)?")
TEST_MODULE = re.compile(TEST_ONLY.pattern + r"mod\s+(\w+)\s*;")
PATH_START = re.compile(r"(?<![\w:$])(?P<root>crate|super(?:\s*::\s*super)*)\s*::\s*")
REEXPORT = re.compile(r"\bpub(?:\([^)]*\))?\s+use\s+(?P<tree>[^;]+);")


def without_comments_and_strings(text):
    """The code with every comment, string and character blanked, its lines kept."""
    return TOKEN.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def end_of_item(text, start):
    """Where the item ends that begins at `start`: at its semicolon, or at the brace that closes its first one."""
    depth = 0
    for position in range(start, len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position + 1
        elif text[position] == ";" and depth == 0:
            return position + 1
    return len(text)


def without_tests(text):
    """The code with every item under `#[cfg(test)]` blanked, its lines kept."""
    while match := TEST_ONLY.search(text):
        end = end_of_item(text, match.end())
        text = text[: match.start()] + re.sub(r"[^\n]", " ", text[match.start() : end]) + text[end:]
    return text


def first_names(text, start):
    """The names that follow a path's beginning at `start`, with their places: one, or each of a list in braces."""
    if text[start] != "{":
        match = re.compile(r"(?:r#)?\w+").match(text, start)
        return [(match.group(), start)] if match else []
    names, depth, fresh = [], 0, True
    for position in range(start, len(text)):
        character = text[position]
        if character == "{":
            depth += 1
            fresh = depth == 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                break
        elif character == "," and depth == 1:
            fresh = True
        elif fresh and depth == 1 and (match := re.compile(r"\w+").match(text, position)):
            names.append((match.group(), position))
            fresh = False
    return names


def leaves(tree):
    """The names that a `use` tree brings in."""
    tree = tree.strip()
    if "{" in tree:
        inner, depth, part, parts = tree[tree.index("{") + 1 : tree.rindex("}")], 0, "", []
        for character in inner + ",":
            depth += (character == "{") - (character == "}")
            if character == "," and depth == 0:
                parts.append(part)
                part = ""
            else:
                part += character
        return [leaf for part in parts if part.strip() for leaf in leaves(part)]
    return [re.split(r"\s+as\s+|::", tree)[-1].strip()]


class Crate:
    def __init__(self, root):
        self.source = root / "src"
        texts = {path: without_comments_and_strings(path.read_text()) for path in sorted(self.source.rglob("*.rs"))}
        tests = {self.folder(path) / name for path, text in texts.items() for name in TEST_MODULE.findall(text)}
        self.files = {path: without_tests(text) for path, text in texts.items() if not self.is_test(path, tests)}
        self.modules = {self.parts(path)[0] for path in self.files} - {"lib", "main"}
        library = self.files.get(self.source / "lib.rs", "")
        self.exports = {}
        for match in REEXPORT.finditer(library):
            module = re.match(r"(?:crate\s*::\s*)?(\w+)", match["tree"]).group(1)
            if module in self.modules:
                self.exports.update((leaf, module) for leaf in leaves(match["tree"]))

    def parts(self, path):
        return path.relative_to(self.source).with_suffix("").parts

    @staticmethod
    def folder(path):
        """Where the files of the modules lie that are declared in `path`."""
        return path.parent if path.stem in ("lib", "main", "mod") else path.with_suffix("")

    def is_test(self, path, tests):
        return path.with_suffix("") in tests or any(folder in tests for folder in path.parents)

    def uses(self):
        """Every use of one top-level module in another: user, used, file and line of each."""
        for path, text in self.files.items():
            parts = self.parts(path)
            if parts[0] in ("lib", "main"):
                continue
            # So many `super` lead from this file to the root of the crate.
            depth = len(parts) - (parts[-1] == "mod")
            for match in PATH_START.finditer(text):
                if match["root"] != "crate" and match["root"].count("super") < depth:
                    continue
                for name, place in first_names(text, match.end()):
                    used = name if name in self.modules else self.exports.get(name)
                    if used and used != parts[0]:
                        yield parts[0], used, path, text.count("\n", 0, place) + 1


def cycles(edges):
    """The strongly connected components of more than one module (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(component)

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def check(crate, root, draw):
    """Prints which modules of a crate form cycles, or its layers where `draw`; whether there are cycles."""
    places, edges = {}, {}
    for module, used, path, line in Crate(root / crate).uses():
        places.setdefault((module, used), []).append(f"{path.relative_to(root)}:{line}")
        edges.setdefault(module, set()).add(used)
    found = cycles(edges)
    for cycle in found:
        print(f"arrows: modules of {crate} form a cycle: {', '.join(sorted(cycle))}", file=sys.stderr)
        for (module, used), where in sorted(places.items()):
            if module in cycle and used in cycle:
                print(f"  {module} uses {used}: {', '.join(where[:3])}{', …' * (len(where) > 3)}", file=sys.stderr)
    if draw and not found:
        print(f"{crate}:")
        for number, layer in reversed(list(enumerate(layers(edges), 1))):
            print(f"  {number:2}  {'  '.join(layer)}")
    return bool(found)


def layers(edges):
    """Modules without cycles by the longest way down, lowest layer first."""
    depth = {}

    def visit(node):
        if node not in depth:
            depth[node] = 1 + max(map(visit, edges.get(node, ())), default=0)
        return depth[node]

    for node in edges:
        visit(node)
    return [sorted(node for node in depth if depth[node] == layer) for layer in range(1, max(depth.values(), default=0) + 1)]


def main():
    root = Path(__file__).resolve().parent.parent
    draw = "--layers" in sys.argv
    crates = [argument for argument in sys.argv[1:] if argument != "--layers"] or CRATES
    failed = [crate for crate in crates if check(crate, root, draw)]
    if not failed and not draw:
        print("arrows: no modules form a cycle")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
