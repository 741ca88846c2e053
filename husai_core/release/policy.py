"""Release policies: versioned data, named by their digest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)

from husai_core import identity, wording
from husai_core.evidence import Provenance

Bound = Literal["low", "high", "value"]


class BaseRule(BaseModel):
    """What the rules of all forms say: the question, the evidence that answers it, and how to get that."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(pattern=r"^[a-z0-9_.]+$", max_length=64)
    title: str = Field(description="the question in plain words")
    evidence: str = Field(description="the job kind whose result is read")
    settle: str = Field(description="what to run when the evidence is missing")


class StatisticRule(BaseRule):
    """One question to the evidence: does this end of the statistic's interval clear the threshold?"""

    statistic: str
    bound: Bound
    op: Literal[">=", "<="]
    threshold: float
    attainable: tuple[float, float] | None = Field(default=None, description="range the statistic can take")
    margin: float | None = Field(
        default=None,
        gt=0,
        description="the statistic is settled when the last doubling of training changed it by less; none: not asked",
    )
    requires_converged: bool | None = Field(
        default=None, description="what policies asked for before there were margins: that training came to rest"
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if (self.bound, self.op) in (("low", "<="), ("high", ">=")):
            raise ValueError(f"rule {self.name}: an interval must clear the threshold with its unfavourable end")
        if self.attainable and not self.attainable[0] <= self.threshold <= self.attainable[1]:
            raise ValueError(f"rule {self.name}: threshold {self.threshold} can never be reached")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_unset(serialise(self), ("margin", "requires_converged"))


class ProvenanceRule(BaseRule):
    """Who trained the SAEs: the weakest provenance among them must be one of those that are accepted."""

    accepts: tuple[Provenance, ...] = Field(min_length=1)


def without_unset(document: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A serialised model without those of some members that are None.

    Members that were added later must not change the bytes, and so the digests, of what was written before.
    """
    return {name: value for name, value in document.items() if value is not None or name not in names}


def _form(rule: Any) -> str:
    """Which form a rule has, by what it holds."""
    asks_provenance = "accepts" in rule if isinstance(rule, Mapping) else isinstance(rule, ProvenanceRule)
    return "ProvenanceRule" if asks_provenance else "StatisticRule"


Rule = Annotated[
    Annotated[StatisticRule, Tag("StatisticRule")] | Annotated[ProvenanceRule, Tag("ProvenanceRule")],
    Discriminator(_form),
]


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


@cache
def names() -> list[str]:
    """The packaged policies."""
    files = resources.files("husai_core.release").joinpath("policies").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


@cache
def load(name: str) -> Policy:
    """The packaged policy called `name`.

    Raises:
        ValueError: there is no such policy.
    """
    if name not in names():
        raise ValueError(f"there is no policy '{name}'; there are: {', '.join(names())}")
    return Policy.model_validate(_document(name))


def resolve(name: str, document: Mapping[str, Any] | None = None) -> Policy:
    """The policy of a name: a packaged one, or a lab's own, which is given in full.

    Raises:
        ValueError: there is no such policy; or the one given is not sound, has another name, or a packaged one's.
    """
    if document is None:
        return load(name)
    try:
        policy = Policy.model_validate(document)
    except ValidationError as error:
        path, message, _ = wording.explain(error.errors()[0], Policy)
        raise ValueError(f"{path}: {message}") from None
    if policy.name != name:
        raise ValueError(f"the policy given is called '{policy.name}', not '{name}'")
    if name in names():
        raise ValueError(f"policy '{name}' comes with husai, so none can be given under its name")
    return policy


def _document(name: str) -> dict[str, Any]:
    """A packaged file. With `extends`, it takes over another one, and its rules replace those of the same names."""
    import yaml

    text = resources.files("husai_core.release").joinpath("policies", f"{name}.yaml").read_text("utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    if (extended := document.pop("extends", None)) is None:
        return document
    base = _document(extended)
    rules = {rule["name"]: rule for rule in (*base["rules"], *document["rules"])}
    return {**base, **document, "rules": list(rules.values())}
