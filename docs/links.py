"""Checks the links of the documentation without a network: bin/docs calls Sphinx, and Sphinx this.

Sphinx itself checks references and pictures. Here: files of the checkout that the text names, the form of
links to the web, and whether each link of the pages that are made leads to a page, and to an anchor in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from docutils import nodes
from sphinx.util import logging

CHECKOUT = Path(__file__).resolve().parents[1]
log = logging.getLogger(__name__)

_FILE = re.compile(r"(?<![\w/.*-])(?:bin|conf|docs|tests|\.ci|inosync)/[\w./@-]*\w")
"""What reads like a file of the checkout."""
_PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b")


def missing_files(text: str) -> list[str]:
    """Return the files that a text names and the checkout does not have."""
    named = [name for name in sorted(set(_FILE.findall(text))) if not _PLACEHOLDER.search(name)]
    return [name for name in named if not (CHECKOUT / name).exists()]


def web_problem(link: str) -> str:
    """Return what is wrong with the form of a link to the web; empty if nothing is."""
    try:
        parts = urlsplit(link)
        host, _ = parts.hostname or "", parts.port
    except ValueError as problem:
        return str(problem)
    if parts.scheme not in ("http", "https", "mailto"):
        return "neither http, https nor mailto"
    if parts.scheme != "mailto" and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", host):
        return "no host"
    return "a space in it" if re.search(r"\s", link) else ""


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif (tag, name) in {
                ("a", "href"),
                ("link", "href"),
                ("img", "src"),
                ("script", "src"),
            } and value:
                self.links.append(value)


def dead_links(pages: Mapping[str, str], others: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Yield page and link of the links in these pages that lead nowhere; ``others`` are files beside them."""
    read = {name: _Page(text) for name, text in pages.items()}
    for name, page in read.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = unquote(parts.path) or name
            anchor = unquote(parts.fragment)
            is_page = target in read
            if not (is_page or target in others) or (
                is_page and anchor and anchor not in read[target].anchors
            ):
                yield name, link


def _check_text(_app: Any, doctree: nodes.document, page: str) -> None:
    if page == "changelog":  # it names what has gone
        return
    for literal in doctree.findall(nodes.literal):
        for name in missing_files(literal.astext()):
            log.warning("no such file in the checkout: %s", name, location=literal)
    for reference in doctree.findall(nodes.reference):
        link = reference.get("refuri", "")
        if link and not reference.get("internal") and (problem := web_problem(link)):
            log.warning("%s: %s", link, problem, location=reference)


def _check_pages(app: Any, failure: Exception | None) -> None:
    if failure is not None or app.builder.name != "html":
        return
    top = Path(app.outdir)
    names = frozenset(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())
    pages = {name: (top / name).read_text("utf-8") for name in names if name.endswith(".html")}
    for page, link in sorted(dead_links(pages, names)):
        log.warning("%s: %s leads nowhere", page, link)


def setup(app: Any) -> dict[str, Any]:
    """Have Sphinx call the checks."""
    app.connect("doctree-resolved", _check_text)
    app.connect("build-finished", _check_pages)
    return {"parallel_read_safe": True}
