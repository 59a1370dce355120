"""Routes that read and check their JSON body in one step.

Knows nothing of what the bodies hold. FastAPI makes Python objects of a whole body before it checks them, and
prepares for dependencies and forms; what is asked for here all day is one checked body.
"""

from collections.abc import Callable, Coroutine
from inspect import iscoroutinefunction, signature
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError

JSON: Final = "application/json"


class JsonRoute(APIRoute):
    """A route of an asynchronous endpoint that takes nothing but a body and answers with a Response.

    What is not sound JSON of the right kind goes FastAPI's own way, which says what is wrong with it; so does
    every request to any other endpoint.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        thorough, endpoint, bodies = super().get_route_handler(), self.endpoint, self.dependant.body_params
        plain = len(bodies) == len(signature(endpoint).parameters) == 1 and not self.dependencies
        if not (plain and iscoroutinefunction(endpoint)):
            return thorough
        kind: Any = bodies[0].field_info.annotation
        checked = TypeAdapter(kind).validate_json

        async def handle(request: Request) -> Response:
            if request.headers.get("content-type") == JSON:
                try:
                    body = checked(await request.body())
                except ValidationError:
                    return await thorough(request)  # the body that was read stays with the request
                answer: Response = await endpoint(body)
                return answer
            return await thorough(request)

        return handle
