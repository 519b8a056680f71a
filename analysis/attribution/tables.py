"""The table of an attribution: a row for each unit of the text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.attribution.grouping import Grouped
from model.text.encoding import EncodedText


def unit_table(units: Grouped, encoded: EncodedText, scale: float = 1.0, information: str = "nats") -> pd.DataFrame:
    """A row for each unit: text, first and last token, characters of the text that the model read, and attribution.

    Attributions are multiplied by `scale`; `information` names the unit that they then have: bits, nats or probability.
    """
    missing = np.full(len(units), np.nan)
    columns: Mapping[str, object] = {
        "unit": np.arange(len(units)),
        "text": pd.Series(units.text, dtype="str"),
        "first_token": units.first,
        "last_token": units.last,
        "start": encoded.start[units.first],
        "end": encoded.end[units.last],
        "attribution": units.value * scale,
        "standard_error": (missing if units.standard_error is None else units.standard_error) * scale,
        "information": information,
    }
    return pd.DataFrame(columns)
