"""JSON Schemas of everything that the service answers, read from docs/openapi.yaml: the only description."""

from pathlib import Path
from typing import Any

import yaml

Schema = dict[str, Any]

OPENAPI: Schema = yaml.safe_load((Path(__file__).parents[2] / "docs" / "openapi.yaml").read_text())


def schema(name: str) -> Schema:
    """Return a schema of the description, complete with those that it refers to."""
    return {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}


PLAIN = schema("Answer")
EXPLANATION = schema("Explanation")
V1 = schema("V1Answer")
V2 = schema("V2Answer")
ERROR = schema("Error")
V2_ERROR = schema("V2Error")
CODES: list[str] = OPENAPI["components"]["schemas"]["Code"]["enum"]
