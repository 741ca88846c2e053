"""Every operation of the OpenAPI document under generated input: no 5xx, and answers as documented."""

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import openapi
from tests.api.serving import Server

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


schema = schemathesis.openapi.from_path(openapi.COMMITTED)


@schema.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_operation(case, server: Server):
    token = (server.home / "key").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    if case.path.endswith("/events"):
        headers["Accept"] = "application/json"
    query = case.query if isinstance(case.query, dict) else {}
    if "wait" in query:
        query["wait"] = 0
    case.call_and_validate(base_url=server.url, checks=CHECKS, headers=headers)
