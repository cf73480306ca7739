"""Is the map true? What happens to the decision when the marked pixels go, and controls that can embarrass us."""

from facexai.metrics.curves import Curve, deletion_curve, insertion
from facexai.metrics.drop import Drop, deletion, prediction_change, retention
from facexai.metrics.faithfulness import Table, faithfulness
from facexai.metrics.sanity import randomisation, stability
from facexai.metrics.shape import class_overlap, narrowness
from facexai.metrics.shortcut import Difference, mad
from facexai.metrics.statistic import Statistic
from facexai.metrics.subject import Options, Reference, mean_map, others

__all__ = [
    "Curve",
    "Difference",
    "Drop",
    "Options",
    "Reference",
    "Statistic",
    "Table",
    "class_overlap",
    "deletion",
    "deletion_curve",
    "faithfulness",
    "insertion",
    "mad",
    "mean_map",
    "narrowness",
    "others",
    "prediction_change",
    "randomisation",
    "retention",
    "stability",
]
