"""Collects the messages of the library and the program from their sources, and lists them in docs/messages.

A section of these pages explains the messages of some sources, and ends with the marker and the list:

    <!-- messages of io/gguf, io/gguf_export -->
    - `message`

Sources are named without `impl/` and suffix, and may have a `*`; the longest name that fits decides. A message is shown
with … for whatever its call puts in. Those that are put together in a variable before they are thrown are not found.
"""
import fnmatch
import pathlib
import re

import generated

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PAGES = ROOT / "docs/messages"
# Where messages are thrown, and how their files are called in the pages. What only the tests run is left out.
SOURCES = {"include/gptq/": "", "backends/cpu/include/gptq/backends/": "", "backends/cuda/include/gptq/backends/": "",
           "examples/gptq/": "program/"}
LEFT_OUT = ["testing/*", "cuda/host_context"]
CALL = re.compile(r"(?:\bthrow\s+[\w:]*?(?:\w*error|cancelled)|\b(?:fail|refuse|require|unsupported|problem)(?:_\w+)?)\s*\(")
LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')
SECTION = re.compile(r"<!-- messages of (?P<names>[^>]*?) -->\n(?:- .*\n)*")


def arguments(text, begin):
    """What stands between the parenthesis at `begin` and its partner."""
    depth, at, quoted = 0, begin, False
    while at < len(text):
        c = text[at]
        if quoted:
            at += c == "\\"
            quoted = c != '"'
        elif c == '"':
            quoted = True
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                return text[begin + 1:at]
        at += 1
    return text[begin + 1:]


def template(call):
    """The literals of a message in their order, with … for what lies between them; nothing if they say too little."""
    out, last = "", 0
    for literal in LITERAL.finditer(call):
        between = re.sub(r"std::string\(|[+\s()]", "", call[last:literal.start()])
        out += ("…" if between else "") + literal[1]
        last = literal.end()
    if re.sub(r"[+\s();]", "", call[last:]):
        out += "…"
    out = re.sub(r"\\([\"\\])", r"\1", out).replace("\\n", " ").replace("`", "'")
    out = re.sub(r"(…[\s,:;.\[\]()x/\"]*)+…", "…", out).strip()
    says_enough = any(len(re.findall(r"[A-Za-z]{2,}", piece)) >= 2 for piece in out.split("…"))
    return out if says_enough else ""


def collect():
    """Messages by the name of their source."""
    found = {}
    for folder, prefix in SOURCES.items():
        for file in sorted((ROOT / folder).rglob("*")):
            name = prefix + str(file.relative_to(ROOT / folder).with_suffix("")).replace("impl/", "")
            if file.suffix not in (".hpp", ".cpp", ".cu") or any(fnmatch.fnmatch(name, p) for p in LEFT_OUT):
                continue
            text = re.sub(r"//[^\"\n]*$", "", file.read_text(), flags=re.MULTILINE)
            messages = [template(arguments(text, call.end() - 1)) for call in CALL.finditer(text)]
            found.setdefault(name, set()).update(m for m in messages if m)
    return {name: sorted(messages) for name, messages in found.items() if messages}


def update(check):
    """Writes the lists, or with `check` returns a line for each page that lacks a message; sources that no section
    names are a problem in either case."""
    pages = {page: page.read_text() for page in sorted(PAGES.glob("*.md"))}
    patterns = [p.strip() for text in pages.values() for s in SECTION.finditer(text) for p in s["names"].split(",")]
    by_pattern, problems = {}, []
    for name, messages in collect().items():
        fitting = [p for p in patterns if fnmatch.fnmatch(name, p)]
        if fitting:
            by_pattern.setdefault(max(fitting, key=len), []).extend(messages)
        else:
            problems.append(f"docs/messages: no section explains the messages of {name}")

    def listed(section):
        lines = sorted({m for p in section["names"].split(",") for m in by_pattern.get(p.strip(), [])})
        return f"<!-- messages of {section['names']} -->\n" + "".join(f"- `{m}`\n" for m in lines)

    for page, text in pages.items():
        wanted = SECTION.sub(listed, text)
        problems += generated.settle(page, text, wanted, check, f"{page.relative_to(ROOT)} lacks messages of the "
                                     "sources: run scripts/docs --update")
    return problems
