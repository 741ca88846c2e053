import re
from importlib import resources

from husai_core.render.style import STYLE

PAGES = resources.files("api").joinpath("static", "pages.css").read_text(encoding="utf-8")
SCRIPT = resources.files("api").joinpath("static", "pages.js").read_text(encoding="utf-8")


def test_no_rule_of_the_pages_reaches_into_figures():
    of_figures = set(re.findall(r"svg \.([a-z-]+)", STYLE))
    unscoped = set(re.findall(r"(?:^|[},])\s*\.([a-z-]+)(?=\s*[{,:.])", PAGES))
    assert of_figures
    assert not of_figures & unscoped


def test_style_and_script_load_nothing_from_elsewhere():
    assert not re.findall(r"https?:|//[a-z]|@import|url\(", PAGES + STYLE)
    assert not re.findall(r"https?:|eval\(|innerHTML|document\.write", SCRIPT)


def test_the_script_stops_when_nothing_is_live_any_more():
    swapping = SCRIPT.partition("function swap")[2].partition("\n}\n")[0]
    assert swapping.index("[data-live]") < swapping.index("replaceWith")
