"""The same measurements over whole data sets, on one machine or many, that can be cut off and started again."""

from facexai.evaluate.config import Config, read
from facexai.evaluate.results import Results
from facexai.evaluate.run import run
from facexai.evaluate.samples import Examples, examples

__all__ = ["Config", "Examples", "Results", "examples", "read", "run"]
