"""A browser without scripts: it keeps cookies, reads pages, and sends their forms."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx

VOID = {"meta", "link", "input", "br", "img"}


@dataclass
class Element:
    """An element with the text inside it."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: list[Element] = field(default_factory=list)


class Page(HTMLParser):
    """A page as its elements; they must nest."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.markup, self.elements, self._open = markup, list[Element](), list[Element]()
        self.feed(markup)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self.elements.append(element)
        for outer in self._open:
            outer.inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """The elements of a tag whose attributes are these; `class_` and `for_` stand for `class` and `for`."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [e for e in self.elements if e.tag == tag and wanted.items() <= e.attributes.items()]

    @property
    def text(self) -> str:
        """The words of the page, with single spaces."""
        return " ".join(self.all("body")[0].text.split())

    def form(self, action: str) -> dict[str, str]:
        """The values that a form would send as it stands."""
        (form,) = [e for e in self.all("form") if e.attributes.get("action") == action]
        return {str(e.attributes["name"]): e.attributes.get("value") or "" for e in form.inside if e.tag == "input"}


class Browser:
    """Follows no redirect by itself."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=60)

    def get(self, path: str) -> Page:
        """A page that is there."""
        response = self.client.get(path)
        assert response.status_code == 200, (response.status_code, response.text[:400])
        assert response.headers["content-type"].startswith("text/html")
        return Page(response.text)

    def post(self, path: str, fields: dict[str, object] | None = None, at: str = "") -> httpx.Response:
        """Send a form with the token of the page that it is on."""
        return self.client.post(path, data={"form_token": self.token(at or path), **(fields or {})})

    def token(self, at: str = "/jobs") -> str:
        """The token of the forms on a page."""
        token = re.search(r'name="form_token" value="([0-9a-f]+)"', self.client.get(at).text)
        assert token is not None
        return token[1]

    def sign_in(self, key: str) -> httpx.Response:
        """Exchange a key for a session."""
        return self.post("/sign-in", {"key": key})
