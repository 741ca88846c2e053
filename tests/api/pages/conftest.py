"""Fixtures: a browser, and one that is signed in."""

import pytest

from tests.api.pages.browser import Browser
from tests.api.serving import Server


@pytest.fixture
def visitor(server: Server) -> Browser:
    """A browser that nobody has signed in."""
    return Browser(server.url)


@pytest.fixture
def browser(server: Server) -> Browser:
    """A browser that a researcher has signed in."""
    browser = Browser(server.url)
    assert browser.sign_in(server.make_key("ada", ["read", "submit", "gate"])).status_code == 303
    return browser
