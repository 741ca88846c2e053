"""The name of a language model in a spec. Light: no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from husai_core import assets


def _checked(name: str) -> str:
    if problem := assets.name_problem(name):
        raise ValueError(problem)
    return name


ModelName = Annotated[str, AfterValidator(_checked)]
"""A built-in language model or a Hugging Face id; anything else is refused before it is looked up."""
