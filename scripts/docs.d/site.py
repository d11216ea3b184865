"""usage: site.py HTML-FOLDER

Doxygen leaves links of the pages as they are where they name a heading of another page, or a file that is no part of
the reference. This makes them links of the site: headings get their anchors, and files are copied as text.
"""
import html
import pathlib
import re
import shutil
import sys

from links import ROOT, pages

SITE = pathlib.Path(sys.argv[1])
HREF = re.compile(r'href="(?![a-z]+:)([^"#]*?)(?:(?:#|::)([^"#]*))?"')
HEADING = re.compile(r'<h\d>(?:<a class="anchor" id="([^"]*)"></a>)\s*(.*?)</h\d>', re.DOTALL)


def built(page):
    """What Doxygen calls a page."""
    if page == ROOT / "README.md":
        return "index.html"
    return "md_" + re.sub(r"\W", "_", str(page.relative_to(ROOT).with_suffix(""))) + ".html"


def anchor_of(name, heading):
    """The anchor on the built page for a heading as GitHub names it."""
    for anchor, text in HEADING.findall((SITE / name).read_text()):
        plain = html.unescape(re.sub(r"<[^>]*>", "", text)).strip()
        if re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-") == heading:
            return "#" + anchor
    return ""


def target(page, link, heading):
    """Where a link of a page leads on the site, or nothing."""
    file = (page.parent / html.unescape(link)).resolve()
    if not file.is_file():
        return None
    if file.suffix == ".md" and (SITE / built(file)).exists():
        return built(file) + (anchor_of(built(file), heading) if heading else "")
    copy = SITE / "files" / file.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, str(copy) + ".txt")
    return f"files/{file.relative_to(ROOT)}.txt"


broken = []
for page in pages():
    site_page = SITE / built(page)
    if not site_page.exists():
        continue

    def mended(match):
        if not match[1] or (SITE / match[1]).exists():
            return match[0]
        leads = target(page, match[1], match[2])
        if leads is None:
            broken.append(f"{page.relative_to(ROOT)}: {match[1]} leads nowhere on the site")
        return match[0] if leads is None else f'href="{leads}"'

    site_page.write_text(HREF.sub(mended, site_page.read_text()))
if broken:
    sys.exit("\n".join(broken))
