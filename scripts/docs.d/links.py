"""Finds links of the pages that lead nowhere in the repository, pages that are too long, and concepts of the library
that docs/concepts.md leaves out."""
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)|<(?:img|source)[^>]*?(?:src|srcset)=\"([^\"]+)\"")
MOST_WORDS = 1500
LONG_PAGES = {"docs/program.md"}  # a reference of every option


def pages():
    folders = [ROOT / name for name in ("docs", "examples", "benchmarks")]
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))])


def without_code(text):
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```|^ {4}.*?$", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text):
    """The anchors that GitHub gives to the headings of a page."""
    found = set(re.findall(r"<a id=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#+ +(.*?)\s*$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE),
                              re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-"))
    return found


def problems_of(page):
    name, text = str(page.relative_to(ROOT)), page.read_text()
    found = []
    for match in LINK.finditer(without_code(text)):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            found.append(f"{name}: the link {link} leads nowhere")
        elif anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
            found.append(f"{name}: the link {link} names no heading of its page")
    words = len(text.split())
    if name.startswith("docs/") and not name.startswith("docs/results/") and name not in LONG_PAGES and words > MOST_WORDS:
        found.append(f"{name}: {words} words, and a page has at most {MOST_WORDS}")
    return found


def missing_concepts():
    """A line for each concept outside of namespaces for details that the page of concepts does not name."""
    page, found = (ROOT / "docs/concepts.md").read_text(), []
    for header in sorted((ROOT / "include").rglob("*.hpp")):
        public = re.sub(r"^namespace detail \{.*?^\}  // namespace detail", "", header.read_text(), flags=re.DOTALL | re.MULTILINE)
        found += [f"docs/concepts.md lacks {name} of {header.relative_to(ROOT)}"
                  for name in re.findall(r"^concept (\w+)", public, re.MULTILINE) if name not in page]
    return found


def update(check):
    """A line for each problem; there is nothing that could be rewritten."""
    return [problem for page in pages() for problem in problems_of(page)] + missing_concepts()
