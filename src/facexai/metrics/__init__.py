"""Faithfulness of maps: the change of the decision when marked pixels are removed, with baseline controls."""

from typing import TYPE_CHECKING

from facexai import _renamed
from facexai.images.pairs import Pairs, read_pairs
from facexai.metrics._batch import Options, Reference, mean_map, other_identity_index
from facexai.metrics._bias_result import Bias, Distance, Rates
from facexai.metrics._shortcut_result import Auroc, Difference, ShortcutAudit
from facexai.metrics._ties import Ties
from facexai.metrics.bias import bias, pair_groups, rank_correlation
from facexai.metrics.concentration import class_overlap, narrowness
from facexai.metrics.counterfactual import CounterfactualQuality, counterfactual, cout
from facexai.metrics.curves import Curve, deletion_curve, insertion
from facexai.metrics.drop import Drop, deletion, prediction_change, retention
from facexai.metrics.faithfulness import Table, faithfulness
from facexai.metrics.kfold import TenFold, ten_fold
from facexai.metrics.localisation import average_precision, localisation, pointing, top_share
from facexai.metrics.pair_bias import pair_bias
from facexai.metrics.pair_curves import PairCurve, verification_deletion, verification_insertion
from facexai.metrics.pair_protocol import PROTOCOLS, Protocol
from facexai.metrics.pair_subject import PairReference
from facexai.metrics.pair_table import pair_faithfulness
from facexai.metrics.sanity import randomisation, stability
from facexai.metrics.shortcut import mad, shortcut_audit
from facexai.metrics.statistic import Statistic
from facexai.metrics.verification import Roc, auc, roc, threshold

__all__ = [
    "PROTOCOLS",
    "Auroc",
    "Bias",
    "CounterfactualQuality",
    "Curve",
    "Difference",
    "Distance",
    "Drop",
    "Options",
    "PairCurve",
    "PairReference",
    "Pairs",
    "Protocol",
    "Rates",
    "Reference",
    "Roc",
    "ShortcutAudit",
    "Statistic",
    "Table",
    "TenFold",
    "Ties",
    "auc",
    "average_precision",
    "bias",
    "class_overlap",
    "counterfactual",
    "cout",
    "deletion",
    "deletion_curve",
    "faithfulness",
    "insertion",
    "localisation",
    "mad",
    "mean_map",
    "narrowness",
    "other_identity_index",
    "pair_bias",
    "pair_faithfulness",
    "pair_groups",
    "pointing",
    "prediction_change",
    "randomisation",
    "rank_correlation",
    "read_pairs",
    "retention",
    "roc",
    "shortcut_audit",
    "stability",
    "ten_fold",
    "threshold",
    "top_share",
    "verification_deletion",
    "verification_insertion",
]

if not TYPE_CHECKING:
    __getattr__ = _renamed.getter(__name__)
