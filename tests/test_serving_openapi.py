"""The OpenAPI documents of the three applications: every field told, every example true, no answer beyond."""

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import hypothesis
import jsonschema
import pytest
import schemathesis
from fastapi import FastAPI
from ray.serve._private.thirdparty.get_asgi_route_name import get_asgi_route_name
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from mlops.versions import Lineage, ModelVersion
from serving.answers import LineageAnswer, ModelAnswer
from serving.feature_desk import FeatureDesk
from serving.feature_service import feature_api
from serving.json_route import JsonRoute
from serving.narrative_desk import NarrativeDesk
from serving.narrative_service import narrative_api
from serving.schemas import SIZING_EXAMPLE
from serving.sizing_desk import SizingDesk
from serving.sizing_service import sizing_api
from tests.serving_client import ask

NAMES = ("features", "sizing", "narratives")
MADE_UP = ("decision_id", "outcome_id", "expires", "replica")  # another one at every request


EXAMPLES = int(os.environ.get("BALLAST_FUZZ_EXAMPLES", "5"))  # of each endpoint, sound and unsound alike


def api_of(name: str, home: Path) -> FastAPI:
    desks = {"features": FeatureDesk, "sizing": SizingDesk, "narratives": NarrativeDesk}
    apis: dict[str, Any] = {"features": feature_api, "sizing": sizing_api, "narratives": narrative_api}
    desk = desks[name]()
    desk.deploy({"home": str(home)})
    assert desk.refused is None
    api: FastAPI = apis[name](desk)
    return api


@pytest.fixture(params=NAMES)
def api(request: pytest.FixtureRequest, home: Path) -> FastAPI:
    return api_of(request.param, home)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_endpoints_stand_before_the_documents_and_name_their_requests(api: FastAPI) -> None:
    ours = [isinstance(route, JsonRoute) for route in api.routes]
    assert ours == sorted(ours, reverse=True)
    assert (ours[0], ours[-1]) == (True, False)
    for path in ("/healthz", "/openapi.json"):
        scope = {"type": "http", "method": "GET", "path": f"/s{path}", "root_path": "/s", "headers": []}
        assert get_asgi_route_name(api, scope) == f"/s{path}"


def test_every_field_parameter_and_endpoint_says_what_it_is(api: FastAPI) -> None:
    document = api.openapi()
    silent = [
        f"{model}.{field}"
        for model, schema in document["components"]["schemas"].items()
        for field, about in schema.get("properties", {}).items()
        if not about.get("description")
    ]
    for path, method, operation in operations(document):
        silent += [
            f"{method} {path} {parameter['name']}"
            for parameter in operation.get("parameters", ())
            if not parameter.get("description")
        ]
        assert operation["summary"]
        assert {"200", "204"} & operation["responses"].keys()
    assert silent == []
    assert len(document["components"]["schemas"]) > 4


def examples_of(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for model, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            yield model, example


def test_every_example_satisfies_its_own_schema(api: FastAPI) -> None:
    document = api.openapi()
    for model, example in examples_of(document):
        schema = {"$ref": f"#/components/schemas/{model}", "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(example)


def test_every_body_has_an_example(api: FastAPI) -> None:
    document = api.openapi()
    shown = {model for model, _ in examples_of(document)}
    for path, method, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        bodies += operation["responses"].values()
        for body in bodies:
            schema = body.get("content", {}).get("application/json", {}).get("schema", {})
            place = schema.get("items", schema).get("$ref", "")
            if place:
                assert place.rpartition("/")[2] in shown, f"{method} {path}"


def sent(api: FastAPI, path: str, method: str, operation: dict[str, Any], decision_id: str) -> Any:
    """The answer to the endpoint's own examples, for a decision that exists."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        (value, *_) = schema.get("examples") or parameter.get("examples") or schema["enum"]
        known = decision_id if parameter["name"] == "decision_id" else value
        path = path.replace(f"{{{parameter['name']}}}", known)
    body = None
    if "requestBody" in operation:
        place = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        body = api.openapi()["components"]["schemas"][place.rpartition("/")[2]]["examples"][0]
    return ask(api, method.upper(), path, json=body)


def masked(value: Any) -> Any:
    """`value` without what is another one at every request, floats as text of nine digits."""
    if isinstance(value, dict):
        return {name: "" if name in MADE_UP else masked(item) for name, item in value.items()}
    if isinstance(value, float):
        return f"{value:.9f}"
    return [masked(item) for item in value] if isinstance(value, list) else value


def test_every_example_that_is_sent_is_answered_as_the_document_shows(api: FastAPI) -> None:
    document = api.openapi()
    decision_id = ""
    if "/batch" in document["paths"]:
        reserved = {**SIZING_EXAMPLE, "reserve": {"key": "EURUSD-1"}}
        decision_id = ask(api, "POST", "/", json=reserved).json()["decision_id"]
    order = sorted(operations(document), key=lambda each: "outcome" in each[0])  # it closes the trade
    for path, method, operation in order:
        answer = sent(api, path, method, operation, decision_id)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        shown = operation["responses"][str(answer.status_code)].get("content")
        if shown is None or path == "/models":
            assert answer.content in (b"", b"[]")
            continue
        place = shown["application/json"]["schema"]["$ref"]
        example = document["components"]["schemas"][place.rpartition("/")[2]]["examples"][0]
        assert masked(answer.json()) == masked(json.loads(json.dumps(example))), f"{method} {path}"


def test_a_version_is_told_whole_but_for_its_place_on_the_disk() -> None:
    assert set(ModelAnswer.model_fields) == {field.name for field in fields(ModelVersion)} - {"path"}
    assert set(LineageAnswer.model_fields) == {field.name for field in fields(Lineage)}


def tried(operation: schemathesis.APIOperation, mode: schemathesis.GenerationMode) -> bool:  # type: ignore[type-arg]
    """Ask the endpoint again and again; False where there is nothing to be asked in this mode."""

    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def asked(case: schemathesis.Case) -> None:
        case.call_and_validate(
            checks=[not_a_server_error, status_code_conformance, response_schema_conformance]
        )

    try:
        asked()
    except hypothesis.errors.Unsatisfiable:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_no_request_that_the_document_allows_or_forbids_breaks_the_application(name: str, home: Path) -> None:
    api = api_of(name, home)
    every = {f"{method.upper()} {path}": about for path, method, about in operations(api.openapi())}
    asked = set()
    for result in schemathesis.openapi.from_asgi("/openapi.json", api).get_all_operations():
        operation = result.ok()
        asked.add(operation.label)
        assert tried(operation, schemathesis.GenerationMode.POSITIVE)
        takes_something = bool({"requestBody", "parameters"} & every[operation.label].keys())
        assert tried(operation, schemathesis.GenerationMode.NEGATIVE) == takes_something
    assert asked == every.keys()
