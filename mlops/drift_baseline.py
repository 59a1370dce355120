"""What drift is measured from: the training rows of one bundle, in one file made when it is registered.

Knows nothing of limits. The file is written whole or not at all, and every bit of it is checked on opening.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_tensors

from features.spec import FEATURE_NAMES, fingerprint
from market.errors import InputError
from market.home import write_atomically
from mlops.drift_streams import Results, Signals
from mlops.evidence import BundleDigest, first_fault

Floats = npt.NDArray[np.float64]

FOLDER: Final = "drift"
MOST_ROWS: Final = 20_000  # of one market, the newest: 5 MB
_MARKET: Final = "market/"


class NoBaseline(InputError):
    """There is no baseline to measure drift from: an alarm, for a model that nobody watches drifts unseen."""


class About(BaseModel):
    """What a baseline is of."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    layout: Literal[1] = 1
    bundle: BundleDigest
    feature_fingerprint: str
    source: str = Field(description="where the training bars came from")
    results: Annotated[
        str, Field(description="which signals the results are of: none the model learned from")
    ]
    symbols: tuple[str, ...] = Field(description="of the signals")


@dataclass(frozen=True)
class Baseline:
    """The training rows of a bundle, and what it did on signals that it had not learned from."""

    about: About
    markets: Mapping[str, Floats]  # by symbol, features of the training bars in order, float64[n, 31]
    signals: Signals  # of training
    results: Results

    def save(self, home: Path) -> Path:
        """Write it below `home`, in place of an earlier one of the same bundle; its path."""
        arrays: dict[str, npt.NDArray[Any]] = {
            f"{_MARKET}{symbol}": rows[-MOST_ROWS:] for symbol, rows in self.markets.items()
        }
        arrays |= {f"signals/{name}": getattr(self.signals, name) for name in _SIGNALS}
        arrays |= {f"results/{name}": getattr(self.results, name) for name in _RESULTS}
        arrays = {name: np.ascontiguousarray(value) for name, value in sorted(arrays.items())}
        about = self.about.model_dump_json()
        path = path_of(home, self.about.bundle)
        write_atomically(path, save_tensors(arrays, {"about": about, "digest": _digest(about, arrays)}))
        return path


_SIGNALS: Final = ("symbol", "features", "size", "values")
_RESULTS: Final = ("d", "r")


def path_of(home: Path, bundle: str) -> Path:
    """Where the baseline of the bundle of that digest lies."""
    return home / FOLDER / f"{bundle}.safetensors"


def open_baseline(home: Path, bundle: str) -> Baseline:
    """The baseline of the bundle of that digest; NoBaseline where there is none, or none that can be used."""
    path = path_of(home, bundle)
    try:
        with safe_open(path, framework="numpy") as file:
            stored = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        about = About.model_validate_json(stored["about"])
    except FileNotFoundError:
        raise NoBaseline(
            "baseline", None, f"train again: bundle {bundle[:12]} was registered without"
        ) from None
    except (OSError, SafetensorError, KeyError) as error:
        raise NoBaseline("baseline", str(path), f"cannot be read ({error}): train again") from None
    except ValidationError as error:
        mend = f"was made by another version: train again ({first_fault(error)})"
        raise NoBaseline("baseline", str(path), mend) from None
    if _digest(stored["about"], arrays) != stored.get("digest") or about.bundle != bundle:
        raise NoBaseline("baseline", str(path), "was altered after it was written: train again")
    if about.feature_fingerprint != fingerprint():
        mend = f"is of other features than today's {fingerprint()[:12]}: train again"
        raise NoBaseline("baseline", about.feature_fingerprint, mend)
    signals = {name: arrays[f"signals/{name}"] for name in _SIGNALS}
    return Baseline(
        about=about,
        markets={
            name.removeprefix(_MARKET): rows for name, rows in arrays.items() if name.startswith(_MARKET)
        },
        signals=Signals(symbols=about.symbols, **signals),
        results=Results(**{name: arrays[f"results/{name}"] for name in _RESULTS}),
    )


def baseline(
    bundle: str,
    source: str,
    markets: Mapping[str, Floats],
    signals: Signals,
    results: tuple[Results, str],
) -> Baseline:
    """The baseline of a bundle; `results` with the words that say what they are of."""
    for symbol, rows in markets.items():
        if rows.ndim != 2 or rows.shape[1] != len(FEATURE_NAMES) or not np.isfinite(rows).all():
            raise InputError(f"baseline {symbol}", rows.shape, "give rows of 31 finite features")
    about = About(
        bundle=bundle,
        feature_fingerprint=fingerprint(),
        source=source,
        results=results[1],
        symbols=signals.symbols,
    )
    return Baseline(about, markets, signals, results[0])


def _digest(about: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 (hex) of everything in the file."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(arrays.items()):
        digest.update(json.dumps([name, str(value.dtype), value.shape]).encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
