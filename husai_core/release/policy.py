"""Release policies: versioned data, named by their digest."""

from __future__ import annotations

from importlib import resources
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from husai_core import identity

Bound = Literal["low", "high", "value"]


class Rule(BaseModel):
    """One question to the evidence: does this end of the statistic's interval clear the threshold?"""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z0-9_.]+$")
    title: str = Field(description="the question in plain words")
    evidence: str = Field(description="the job kind whose result is read")
    statistic: str
    bound: Bound
    op: Literal[">=", "<="]
    threshold: float
    attainable: tuple[float, float] | None = Field(default=None, description="range the statistic can take")
    requires_converged: bool = True
    settle: str = Field(description="what to run when the evidence is missing")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.bound, self.op) in (("low", "<="), ("high", ">=")):
            raise ValueError(f"rule {self.name}: an interval must clear the threshold with its unfavourable end")
        if self.attainable and not self.attainable[0] <= self.threshold <= self.attainable[1]:
            raise ValueError(f"rule {self.name}: threshold {self.threshold} can never be reached")
        return self


class Policy(BaseModel):
    """A list of rules, all of which must pass.

    Because a pass needs every rule, the chance of a wrong pass is at most that of its weakest rule, so the rules
    need no correction for their number (intersection-union test, Berger 1982).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    version: int = Field(ge=1)
    title: str
    confidence: float = Field(gt=0, lt=1, description="confidence level that intervals must have at least")
    max_age_days: float | None = Field(gt=0, description="evidence older than this is stale; none: never")
    two_valued: bool = Field(default=False, description="whatever is not a pass is a fail")
    rules: tuple[Rule, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        if len({rule.name for rule in self.rules}) < len(self.rules):
            raise ValueError("two rules have one name")
        return self

    @property
    def digest(self) -> str:
        """The policy's identity: SHA-256 of its canonical JSON."""
        return identity.digest(self.model_dump(mode="json"))


def names() -> list[str]:
    """The packaged policies."""
    files = resources.files("husai_core.release").joinpath("policies").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load(name: str) -> Policy:
    """The packaged policy called `name`.

    Raises:
        ValueError: there is no such policy.
    """
    import yaml

    if name not in names():
        raise ValueError(f"there is no policy '{name}'; there are: {', '.join(names())}")
    text = resources.files("husai_core.release").joinpath("policies", f"{name}.yaml").read_text("utf-8")
    return Policy.model_validate(yaml.safe_load(text))
