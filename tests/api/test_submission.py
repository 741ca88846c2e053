"""What a spec may hold: values that have canonical JSON and that every database can keep."""

from typing import Any

import pytest
from pydantic import BaseModel

from api import schemas
from api.submission import from_body
from husai_core.identity import canonical
from services.problems import Problem


class Spec(BaseModel):
    value: Any


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**53, "is too large a number"),
        ([-(2**53)], "is too large a number"),
        (float("inf"), "must be a finite number"),
        ("\ud800", "half of a character"),
        ("a\nb", "control characters"),
        ({"a\0": 1}, "control characters"),
    ],
)
def test_what_has_no_canonical_json_is_refused(value: Any, message: str) -> None:
    class Inf(Spec):
        model_config = {"ser_json_inf_nan": "constants"}

    with pytest.raises(Problem) as refused:
        from_body(schemas.JobRequest(kind="any", spec=Inf.model_construct({"value"}, value=value)))
    assert (refused.value.slug, refused.value.extra["errors"][0]["message"]) == ("invalid-spec", message)


def test_everything_else_is_taken() -> None:
    value = {"a": [1, -1.5, 2**53 - 1, "é", "😀", True, None], "b": {"c": {}}}
    submission = from_body(schemas.JobRequest(kind="any", spec=Spec(value=value)))
    assert submission.spec == {"value": value}
    assert canonical(submission.spec)
