"""Copies programs, or parts of them, into the pages that show them.

A page names the program in a comment before a block of code:

    <!-- from examples/NAME.cpp -->          all of it, but for comments at its head
    <!-- from examples/NAME.cpp: PART -->    what lies between two lines `//! [PART]` of it
"""
import pathlib
import re
import textwrap

import generated

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"(<!-- from (?P<file>\S+?)(?:: (?P<part>[\w ]+))? -->\n```\w*\n)(?P<code>.*?)(?P<end>```)", re.DOTALL)
MARK = re.compile(r"^\s*//! \[[\w ]+\]\n", re.MULTILINE)


def pages():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def cut(file, part):
    """The text of a part of a program, or of all of it, without marks."""
    program = (ROOT / file).read_text()
    if part is None:
        return MARK.sub("", re.sub(r"\A(//.*\n)+", "", program)).strip("\n")
    pieces = re.split(rf"^\s*//! \[{re.escape(part)}\]\n", program, flags=re.MULTILINE)
    if len(pieces) != 3:
        raise SystemExit(f"{file}: needs two lines `//! [{part}]`, and has {len(pieces) - 1}")
    return textwrap.dedent(MARK.sub("", pieces[1])).strip("\n")


def update(check):
    """Copies, or with `check` returns a line for each page that shows something else."""
    problems = []
    for page in pages():
        shown = page.read_text()
        wanted = BLOCK.sub(lambda m: m[1] + cut(m["file"], m["part"]) + "\n" + m["end"], shown)
        problems += generated.settle(page, shown, wanted, check, f"{page.relative_to(ROOT)} shows other code than its "
                                     "examples hold: run scripts/docs --update")
    return problems
