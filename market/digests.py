"""The SHA-256 of all that a model holds, by which its configuration or evidence is known again."""

import hashlib
import json

from pydantic import BaseModel


def digest_of(model: BaseModel) -> str:
    """In hex, of every field in JSON: keys sorted, no spaces. ValueError for a number that is not finite."""
    text = json.dumps(model.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
