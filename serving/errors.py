"""Errors as OpenAI's API reports them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

RETRY_AFTER = "5"  # seconds that a client should wait if there is no room for it
LONGEST_MESSAGE = 500  # characters, where a message repeats a part of the request


@dataclass
class ApiError(Exception):
    """A request that cannot be answered."""

    status: int
    message: str
    kind: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


def refused(error: ValidationError) -> ApiError:
    """Return the first thing that is wrong with a request, without repeating its values."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    field = errors[0]["loc"][:1]
    own = [each for each in errors if each["loc"][:1] == field]
    found = next((each for each in own if not each["type"].endswith("_type")), own[-1])  # of several types, the last
    if found["type"] == "extra_forbidden":
        name = ".".join(map(str, found["loc"]))[:200]
        return ApiError(400, f"unknown field {name!r}; remove it", param=name, code="unknown_parameter")
    param, said = "".join(map(str, field)) or None, found["msg"].removeprefix("Value error, ")
    return ApiError(400, (f"{param}: {said}" if param else said)[:LONGEST_MESSAGE], param=param, code="invalid_value")
