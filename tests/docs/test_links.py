"""Links lead somewhere, and README.md leads to every page."""

import re

import blocks
import pytest

PAGES = [page for page in blocks.pages() if page.endswith(".md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.M | re.S)


def text_of(page):
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page):
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    here = blocks.ROOT / page
    for link in LINK.findall(text_of(here)):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (here.parent / path).resolve() if path else here
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}: {sorted(anchors(target))}"


def test_index_is_whole():
    listed = set(LINK.findall(text_of(blocks.ROOT / "README.md")))
    assert {str(page.relative_to(blocks.ROOT)) for page in blocks.ROOT.glob("docs/*.md")} <= listed
