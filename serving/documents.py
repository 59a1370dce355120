"""The OpenAPI document of an application, with an example of every answer.

Knows nothing of what the examples hold.
"""

from typing import Any

from fastapi import FastAPI

from serving.examples import ANSWERS


def install(api: FastAPI) -> None:
    """Have the document of `api` show examples. Said in the models, FastAPI would leave out what is null."""
    plain = api.openapi

    def openapi() -> dict[str, Any]:
        document = plain()  # made once, then the same object
        for model, schema in document["components"]["schemas"].items():
            if model in ANSWERS:
                schema["examples"] = [ANSWERS[model]]
        return document

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
