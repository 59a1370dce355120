"""`load`: one line of text names market data and becomes validated bars. Knows nothing of what they are for.

Nothing is written anywhere, and bars come out only after every row was read and checked: a source that fails
midway leaves nothing partial behind.
"""

from __future__ import annotations

import warnings
import zlib
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import pandas as pd
import pyarrow.parquet as pq

from market.bars import Bars
from market.errors import DataError, first_line
from market.frames import bars_from_frame
from market.samples import SAMPLES, load_samples

_FORMS = (
    "give sample:NAME, synthetic:regimes?bars=N&seed=N, a .csv, .csv.gz or .parquet file, a folder of "
    "Parquet files, sqlite:///PATH?table=NAME or postgresql+psycopg://USER@HOST/DATABASE?table=NAME"
)
_CSV = (".csv", ".csv.gz")
_PARQUET = (".parquet", ".pq")
_SHOWN_FILES = 12


def load(source: str) -> tuple[Bars, ...]:
    """Bars per symbol of `sample:…`, `synthetic:…`, a CSV or Parquet path or SQL URL; else `DataError`.

    A file holds one symbol, named by the file, or several by a `symbol` column; a folder of Parquet files may
    also be partitioned by `symbol=NAME` folders.
    """
    scheme, colon, rest = source.partition(":")
    if colon and scheme == "sample":
        return load_samples(rest)
    if colon and scheme == "synthetic":
        return (_synthetic(rest),)
    if colon and scheme == "journal":
        raise DataError("source", "journal:…", "a journal holds trades, no bars: only train and tune take it")
    if colon and rest.startswith("//"):
        if scheme.partition("+")[0] not in ("sqlite", "postgresql"):
            # Only the scheme is shown: the rest may hold a password.
            raise DataError("source", f"{scheme}://…", _FORMS)
        from market.database import load_sql  # SQLAlchemy takes 0.2 s to import

        return load_sql(source)
    return _files(source)


def _synthetic(rest: str) -> Bars:
    from market.synthetic import regimes

    kind, _, query = rest.partition("?")
    if kind != "regimes":
        raise DataError("synthetic source", kind, "give synthetic:regimes?bars=100000&seed=0")
    options = {"bars": 100_000, "seed": 0, "minutes": 60}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in options:
            raise DataError("synthetic source", key, f"the options are {', '.join(options)}")
        if not (value.isascii() and value.isdigit() and len(value) <= 18):
            raise DataError(f"synthetic source {key}", value, "give a whole number")
        options[key] = int(value)
    return regimes(options["bars"], options["seed"], options["minutes"])


def _files(source: str) -> tuple[Bars, ...]:
    path = Path(source).expanduser()
    name = path.name.lower()
    try:
        if path.is_dir():
            return bars_from_frame(_parquet_folder(path), path.name, sort=True)
        if not path.is_file():
            raise DataError("source", source, f"no such file; {_what_exists(path)}; {_FORMS}")
        for ending in _CSV + _PARQUET:
            if name.endswith(ending):
                frame = _csv(path) if ending in _CSV else _parquet(path)
                return bars_from_frame(frame, path.name[: -len(ending)])
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zlib.error) as error:
        # pandas and Arrow say "unreadable" with many exceptions; all derive from these.
        raise DataError("source", source, f"cannot be read: {first_line(error)}") from error
    raise DataError("source", source, _FORMS)


def _csv(path: Path) -> pd.DataFrame:
    columns = pd.read_csv(path, nrows=0).columns
    text = [name for name in columns if name.strip().lower() == "symbol"]
    with warnings.catch_warnings():
        # Too many cells in a row would otherwise be cut off, or shift the columns.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            # A ticker may be NA or TRUE; elsewhere only an empty cell is missing, other words are faults.
            return pd.read_csv(
                path,
                dtype=dict.fromkeys(text, str),
                keep_default_na=False,
                na_values={name: [""] for name in columns},
                index_col=False,
                low_memory=False,
            )
        except pd.errors.ParserWarning as warning:
            raise ValueError(str(warning)) from warning


def _parquet(file: Path) -> pd.DataFrame:
    # Without Arrow's own reading of folder names: it makes a number of symbol=0700.
    frame: pd.DataFrame = pq.read_table(file, partitioning=None).to_pandas()
    return frame


def _parquet_folder(folder: Path) -> pd.DataFrame:
    """All Parquet files under a folder; the name in a `symbol=NAME` folder stays text (0700 is not 700)."""
    parts = []
    for file in sorted(folder.rglob("*")):
        inner = file.relative_to(folder).parts
        if file.suffix not in _PARQUET or any(part.startswith((".", "_")) for part in inner):
            continue  # names with . or _ are other programs' drafts and notes
        frame = _parquet(file)
        for part in inner[:-1]:
            key, equals, value = part.partition("=")
            if equals and key.lower() == "symbol":
                frame["symbol"] = unquote(value)
        if isinstance(frame.index, pd.DatetimeIndex):
            frame = frame.rename_axis("timestamp").reset_index()
        parts.append(frame)
    if not parts:
        raise DataError("source", str(folder), f"the folder holds no Parquet file; {_FORMS}")
    return pd.concat(parts, ignore_index=True)


def _what_exists(path: Path) -> str:
    endings = _CSV + _PARQUET
    try:
        names = sorted(file.name for file in path.parent.iterdir() if file.name.lower().endswith(endings))
    except OSError:
        return f"nor does its folder exist; the samples are {', '.join(SAMPLES)}"
    more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    there = ", ".join(names[:_SHOWN_FILES]) + more if names else "no CSV or Parquet file"
    return f"its folder holds {there}; the samples are {', '.join(SAMPLES)}"
