"""The checks can fail: what is shown and what is printed, and pages that hide a block."""

import blocks
import compare
import pytest


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a  b\n", "a b"), ("score 0.50 ok", "score 0.51 ok"), ("id … end", "id 1 2 end"), ("...\nlast", "1\n2\nlast"),
        ("first\n...\nlast", "first\nlast"), ("first\n...", "first\n2"), ("...", ""), ("", ""), ("1e-05 [0, 3]", "1e-05 [0, 3]"),
    ],
)  # fmt: skip
def test_same(shown, printed):
    assert compare.difference(shown, printed) is None


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a b", "a c"), ("a", "a\nb"), ("a\nb", "a"), ("score 0.50", "score 0.60"), ("[0, 3]", "[0, 4]"), ("first\n...\nlast", "first\n2"),
        ("...\nlast", "last\nmore"), ("", "something"), ("something", ""), ("0.5 x", "0.5 y"), ("id … end", "id 1"),
    ],
)  # fmt: skip
def test_other(shown, printed):
    assert compare.difference(shown, printed) is not None


@pytest.mark.parametrize(
    "page",
    ["text\n\n    indented\n", "```\nno language\n```\n", "```rust\nother\n```\n", "```c\nno end\n", "```output\nof nothing\n```\n",
     "```text\na\n```\n\n```output\nb\n```\n"],
)  # fmt: skip
def test_pages_hide_nothing(page, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(ValueError, match=r"page\.md:"):
        blocks.read("page.md")
