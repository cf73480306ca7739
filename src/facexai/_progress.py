"""The progress bar of every long call: tqdm's, in a notebook as a widget where ipywidgets is there."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():  # without ipywidgets tqdm says so, and draws with letters: that is good enough
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
