"""The style sheet of rendered panels."""

from importlib import resources

STYLE = resources.files("husai_core.render").joinpath("style.css").read_text(encoding="utf-8")
