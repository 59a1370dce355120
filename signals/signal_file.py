"""A user's own signals, read from a CSV file.

Knows nothing of how they came about. What it returns still goes through `checked`, like the signals of any
rule.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict

from market.bars import Bars
from market.errors import DataError
from signals.signal_frame import OPTIONAL_COLUMNS, REQUIRED_COLUMNS, row_name

TEXT_COLUMNS = ("timestamp", "symbol", "strategy_id")
# An ISO 8601 time ends with Z or a numeric offset; anything else leaves the reader guessing which clock was
# meant.
OFFSET = r"(?:[Zz]|[+-]\d{2}:?\d{2})\s*$"


class SignalFile(BaseModel):
    """The rule `csv:PATH`: columns
    timestamp,symbol,side,stop,take_profit[,entry][,max_hold][,confidence][,strategy_id].

    Errors name the line of the file, its header being line 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str

    @property
    def name(self) -> str:
        return f"csv:{self.path}"

    def generate(self, bars: Bars) -> pd.DataFrame:
        """The file's signals for the symbol and time span of `bars`; those of other symbols or times are left
        out.

        Raises DataError for a file that cannot be read, a missing column, a timestamp without its offset, a
        cell that is no number.
        """
        frame = self._read()
        symbol = frame["symbol"].str.strip().str.upper() == bars.symbol.upper()
        if len(bars) == 0:
            return frame[np.zeros(len(frame), dtype=np.bool_)]
        first, last = pd.to_datetime(bars.time[[0, -1]], utc=True)
        return frame[symbol & (frame["timestamp"] >= first) & (frame["timestamp"] <= last)]

    def _read(self) -> pd.DataFrame:
        if not Path(self.path).is_file():
            raise DataError("signal file", self.path, "give the path of a CSV file that exists")
        try:
            # Read as text, so that an error can show the cell as it was written.
            frame = pd.read_csv(self.path, dtype=str, keep_default_na=False, skipinitialspace=True)
        except (OSError, ValueError) as error:
            raise DataError(
                "signal file", self.path, f"give a readable CSV file with a header ({error})"
            ) from None
        frame.columns = frame.columns.str.strip()
        missing = [column for column in REQUIRED_COLUMNS if column not in frame]
        if missing:
            raise DataError("signal file columns", list(frame.columns), f"add the column {missing[0]}")
        frame.index = pd.RangeIndex(2, len(frame) + 2, name="line")
        return frame.assign(
            **{column: _parsed(frame, column) for column in frame.columns if column != "symbol"}
        )


def _parsed(frame: pd.DataFrame, column: str) -> pd.Series:
    text = frame[column]
    if column == "timestamp":
        aware = text.str.contains(OFFSET, regex=True).to_numpy(dtype=bool)
        _require(
            aware,
            frame,
            column,
            "end it with Z or an offset such as +00:00, for example 2017-03-01T14:00:00Z",
        )
        stamps = pd.to_datetime(text, utc=True, errors="coerce", format="ISO8601")
        _require(
            stamps.notna().to_numpy(dtype=bool),
            frame,
            column,
            "write an ISO 8601 time such as 2017-03-01T14:00:00Z",
        )
        return stamps
    if column in TEXT_COLUMNS or column not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS:
        return text
    numbers = pd.to_numeric(text, errors="coerce")
    _require(
        np.isfinite(numbers.to_numpy(dtype=np.float64)),
        frame,
        column,
        "give a finite number, or leave the column out",
    )
    return numbers


def _require(good: npt.NDArray[np.bool_], frame: pd.DataFrame, column: str, mend: str) -> None:
    if not np.all(good):
        row = int(np.argmin(good))
        raise DataError(row_name(frame, row, column), frame[column].iloc[row], mend)
