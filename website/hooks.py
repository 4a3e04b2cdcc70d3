"""What the site shows besides docs/*.md, made when it is built: `mkdocs build --strict`, `mkdocs serve`.

README.md is the first page, each notebook is a page with its pictures, and the reference is read from the source, from
docstrings and from conf/. Links that leave docs/ (to code, on GitHub) lead to a page that shows the file.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "website")]

import names  # noqa: E402
import settings  # noqa: E402
import tutorial  # noqa: E402

import commands  # noqa: E402

_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_FILE_NAME = re.compile(r"\[[\w/]+\.(?:md|ipynb)(?=\]\(([^)\s#:]+)[)#])")
_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
_FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds what is generated, and every file that a page links to."""
    pages = {uri: (ROOT / name).read_text() for name, uri in _PAGES.items() if (ROOT / name).is_file()}
    pages["reference/python.md"] = names.page()
    pages["reference/settings.md"] = settings.groups_page()
    pages["reference/presets.md"] = settings.presets_page()
    pages["reference/commands.md"] = commands.page()
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        pages[f"tutorial/{path.stem}.md"], pictures = tutorial.page(path)
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorial/{name}", content=content))
    files.append(File.generated(config, "site.css", content=(ROOT / "website" / "site.css").read_text()))
    shown = {**pages, **{file.src_uri: file.content_string for file in files if file.src_uri.endswith(".md")}}
    while shown:  # the files that are linked may link to files themselves
        targets = {path for uri, text in shown.items() for path in _linked(uri, text)}
        shown = {_uri(path): _as_page(path) for path in targets if _uri(path).startswith("files/")}
        shown = {uri: text for uri, text in shown.items() if uri not in pages}
        pages |= shown
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links that hold in the repository into links of the site."""
    here = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        path = _place(here, match[2])
        if path is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(_uri(path), posixpath.dirname(here) or '.')}{match[3]}"

    def titled(match: re.Match[str]) -> str:
        path = _place(here, match[1])
        return f"[{_title(path)}" if path else match[0]

    parts = _FENCE.split(markdown)  # code is left as it is
    for number in range(0, len(parts), 2):
        parts[number] = _LINK.sub(moved, _FILE_NAME.sub(titled, parts[number]))
    return "".join(parts)


def _title(path: str) -> str:
    """What a page is called, for links that show the name of its file."""
    text = (ROOT / path).read_text()
    if path.endswith(".ipynb"):
        text = "".join(json.loads(text)["cells"][0]["source"])
    heading = re.search(r"^# (.+)$", text, re.MULTILINE)
    return heading[1] if heading else path


def _linked(uri: str, text: str) -> set[str]:
    found = (_place(uri, match[2]) for match in _LINK.finditer(_FENCE.sub("", text)))
    return {path for path in found if path}


def _place(uri: str, target: str) -> str | None:
    """The path in the repository that a link of a page names; None for what is not there."""
    if uri.startswith("reference/"):
        return None  # its links are those of the site
    folder = posixpath.dirname(_source(uri))
    path = posixpath.normpath(posixpath.join(folder, target))
    return path if not path.startswith("..") and (ROOT / path).exists() else None


def _source(uri: str) -> str:
    """The file of the repository that a page is made of."""
    for name, made in _PAGES.items():
        if uri == made:
            return name
    if uri.startswith("files/"):
        return uri.removeprefix("files/").removesuffix(".md")
    if uri.startswith("tutorial/"):
        return f"notebooks/{posixpath.basename(uri)}"
    return f"docs/{uri}"


def _uri(path: str) -> str:
    """The page, or picture, that shows a file of the repository."""
    if path in _PAGES:
        return _PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if re.fullmatch(r"notebooks/\d\w*\.(ipynb|py)", path):
        return f"tutorial/{Path(path).stem}.md"
    return f"files/{path}.md"


def _as_page(path: str) -> str:
    """A file as Markdown: Markdown as it is, a folder as a list, all else as code."""
    file = ROOT / path
    if file.is_dir():
        inside = sorted(each.relative_to(ROOT).as_posix() for each in file.iterdir() if each.name != "__pycache__")
        return "\n".join([f"# {path}", "", *(f"- `{each}`" for each in inside), ""])
    text = file.read_text()
    if file.suffix == ".md":
        return text
    kind = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".json": "json"}.get(file.suffix, "text")
    return f"# {os.path.basename(path)}\n\n`{path}`\n\n````{kind}\n{text.rstrip()}\n````\n"
