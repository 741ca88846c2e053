"""The OpenAPI document; `python -m api.openapi` writes the committed copy."""

import json
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import schemas
from api.errors import MEDIA_TYPE
from services.settings import Settings

COMMITTED = Path(__file__).parent.parent / "openapi.json"
PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
ALWAYS = {
    "401": "The key is missing, unknown, expired or revoked",
    "403": "The key lacks the scope",
    "422": "Understood but not acceptable",
    "default": "Any other problem",
}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application, with every refusal described as a problem."""
    if app.openapi_schema is None:
        contents = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        contents["components"]["schemas"]["Problem"] = schemas.Problem.model_json_schema()
        for name in ("HTTPValidationError", "ValidationError"):
            contents["components"]["schemas"].pop(name, None)
        for path, operations in contents["paths"].items():
            for operation in operations.values():
                _describe(path, operation)
        app.openapi_schema = contents
    return app.openapi_schema


def _describe(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    described = dict(ALWAYS) if path.startswith("/v1") else {"default": ALWAYS["default"]}
    if "{" in path:
        described["404"] = "Unknown, or not yours"
    for status, description in described.items():
        responses[status] = {"description": description, **PROBLEM}
    accepted = responses.get("202")
    if accepted is not None:
        accepted["headers"] = {"Location": {"schema": {"type": "string"}}, "ETag": {"schema": {"type": "string"}}}


def text() -> str:
    """The document as it is committed."""
    from api.app import create_app

    with tempfile.TemporaryDirectory() as home:
        contents = create_app(Settings(home=Path(home))).openapi()
    return json.dumps(contents, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    COMMITTED.write_text(text())
