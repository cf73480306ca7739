"""Measurements over whole data sets, on one machine or several; an interrupted run can be resumed."""

from facexai.evaluate.config import Config, read
from facexai.evaluate.results import Results
from facexai.evaluate.run import run
from facexai.evaluate.samples import Examples, examples

__all__ = ["Config", "Examples", "Results", "examples", "read", "run"]
