"""A price predictor as one file: written whole, and opened only if it is unaltered and answers as it did.

The file is safetensors: numeric arrays and text, nothing that is executed when it is opened. Knows nothing of
how predictors are trained, nor of serving.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from features.spec import fingerprint
from market.errors import DataError
from market.home import home, write_atomically
from signals.predictor import PricePredictor

Arrays = dict[str, npt.NDArray[Any]]

FOLDER: Final = "predictors"
SCHEMA: Final = "ballast price predictor 1"
LONGEST_NAME: Final = 120  # of a file, before it is abbreviated: symbols may be long and in any script


class About(BaseModel):
    """What a saved predictor answers, and what it was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    symbol: str
    horizon: int  # bars ahead
    threshold: float  # log return beyond which a move counts as up or down
    verdict: str  # of its walk-forward figures, in words
    data: str  # digest of the training bars


@dataclass(frozen=True)
class SavedPredictor:
    """A predictor, what it is about, and the golden rows it was asked before it was written."""

    predictor: PricePredictor
    about: About
    golden: Mapping[str, npt.NDArray[np.float64]]

    def save(self, folder: Path) -> Path:
        """Write the file of the symbol below `folder`, whole or not at all; an older one is replaced."""
        arrays: Arrays = {
            **{f"predictor/{name}": values for name, values in self.predictor.to_arrays().items()},
            **{f"golden/{name}": values for name, values in self.golden.items()},
        }
        arrays = {name: np.ascontiguousarray(values) for name, values in sorted(arrays.items())}
        text = {"schema": SCHEMA, "features": fingerprint(), "about": self.about.model_dump_json()}
        path = folder / file_name(self.about.symbol)
        write_atomically(path, save_tensors(arrays, text | {"digest": _digest(arrays, text)}))
        return path


def file_name(symbol: str) -> str:
    """The name of a symbol's file: the symbol, with what cannot stand in a file's name written as %XX."""
    name = quote(symbol, safe="")
    if len(name) > LONGEST_NAME:
        name = f"{name[:40]}-{hashlib.sha256(symbol.encode()).hexdigest()}"
    return f"{name}.safetensors"


def open_predictor(source: str | Path, folder: Path | None = None) -> SavedPredictor:
    """The predictor of a symbol as last trained (`folder` None: below `BALLAST_HOME`), or of a path.

    Raises DataError for a file that is missing, altered, no predictor, of features defined otherwise, or that
    answers its golden rows otherwise than when it was written.
    """
    path = source
    if isinstance(source, str):
        path = (home() / FOLDER if folder is None else folder) / file_name(source.strip().upper())
    try:
        with safe_open(path, framework="numpy") as file:
            text = dict(file.metadata() or {})
            arrays: Arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, TypeError) as error:
        mend = f"train one first: ballast train --mode predictor ({error})"
        raise DataError("predictor file", str(path), mend) from None
    recorded = text.pop("digest", None)
    if set(text) != {"schema", "features", "about"} or text["schema"] != SCHEMA:
        raise DataError("predictor file", str(path), f"needs schema {SCHEMA!r}")
    if recorded != _digest(arrays, text):
        raise DataError("predictor digest", recorded, f"{path} was altered: train again")
    if text["features"] != fingerprint():
        raise DataError("predictor features", text["features"], f"train again: they are now {fingerprint()}")
    try:
        about = About.model_validate_json(text["about"])
    except ValidationError as error:
        raise DataError("predictor file", text["about"], f"train again with this version ({error})") from None
    predictor = PricePredictor.from_arrays(_under("predictor/", arrays))
    golden = _under("golden/", arrays)
    if set(golden) != {"rows", "answers"} or not len(golden["rows"]):
        raise DataError("predictor, golden rows", sorted(golden), "train again with this version")
    predictor.check_golden(golden)
    return SavedPredictor(predictor, about, golden)


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _digest(arrays: Arrays, text: Mapping[str, str]) -> str:
    """SHA-256 (hex) of the text and of every array: name, type, shape, bytes."""
    content = hashlib.sha256(json.dumps(dict(text), sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        content.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        content.update(array.tobytes())
    return content.hexdigest()
