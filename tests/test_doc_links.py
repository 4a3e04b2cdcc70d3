"""Links of all pages and notebooks lead somewhere, and so do files that texts and messages name."""

import re

import pytest

from tests.pages import ROOT, Page, pages

LINK = re.compile(r"\]\(([^)\s]*?)(?:#([^)\s]*))?\)")
BY_PATH = {page.path: page for page in pages()}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.path)
def test_links_and_anchors_exist(page: Page):
    for target, anchor in LINK.findall(page.prose):
        if re.match(r"\w+:", target):
            continue
        path = (ROOT / page.path).parent / target if target else ROOT / page.path
        assert path.exists(), f"{page.path}: {target}"
        if anchor:
            linked = BY_PATH[path.resolve().relative_to(ROOT).as_posix()]
            assert anchor in linked.anchors, f"{page.path}: {target}#{anchor}; there are {sorted(linked.anchors)}"


def test_pages_that_texts_settings_and_messages_name_exist():
    files = [*ROOT.glob("*.md"), *ROOT.glob("*.toml"), *ROOT.glob("*.py")]
    for folder in ("docs", "conf", "src", "tests", "notebooks", "benchmarks", ".ci"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".yaml", ".py", ".sh", "")]
    named = set()
    for path in files:
        if path.is_file():
            for name in re.findall(
                r"(?<![\w/])docs/\w+\.(?:md|png)", path.read_text(encoding="utf-8", errors="ignore")
            ):
                named.add((path.relative_to(ROOT).as_posix(), name))
    assert len(named) > 50
    assert [(path, name) for path, name in sorted(named) if not (ROOT / name).is_file()] == []


def test_files_that_pages_name_exist():
    """Paths in backticks that begin with a folder of the checkout."""
    named = re.compile(r"(?:python )?((?:src|tests|conf|benchmarks|notebooks|website)/[\w./]+\.\w+)")
    lost = [
        (page.path, match[1])
        for page in pages()
        for word in page.words
        if (match := named.match(word)) and not (ROOT / match[1]).exists() and not re.search("/local/|NAME", match[1])
    ]
    assert lost == []


def test_every_page_has_a_place_on_the_site():
    """`mkdocs build --strict` says the same, later."""
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    for page in pages():
        if page.path.startswith("docs/"):
            assert re.search(rf"[ :]{re.escape(page.path[5:])}$", nav, re.MULTILINE), page.path


def test_anchors_are_those_of_github():
    page = Page("x.md", "# `a.b`: is it, or [not](x.md)?\n\n```\n# no heading\n```\n## Two  words\n")
    assert page.anchors == {"ab-is-it-or-not", "two--words"}
