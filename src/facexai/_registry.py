"""The explainers, one row each: exports, commands, runs, reports, tests and documentation follow from these rows.

Importing this module imports no explainer, so commands can list their choices at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Literal, final

Needs = Literal["a head that folds", "gradients", "a layer", "outputs", "a base", "a denoiser"]
Question = Literal["classes", "pairs", "frequencies", "counterfactuals"]


@final
@dataclass(frozen=True)
class Row:
    """The registry's row of one explainer.

    Attributes:
        name: in commands and configurations.
        cls: name of the class.
        module: its module in ``facexai.explainers``.
        title: the method's name in prose.
        answers: its question, for the table of methods.
        needs: what of a network it needs; ``"outputs"`` is what a black box has, too.
        cost: in passes of the network.
        mark: what of it is published, reconstructed or ours.
        caveats: its limitations, for readers of a report.
        papers: full references, for the bibliography.
        about: the questions it is called with.
        class_maps: whether it gives a map of any class, which SDD can wrap; otherwise the map is the same for every
            class, or there are no classes.
        card: name of its page in ``docs/methods``; default: that of the module.
    """

    name: str
    cls: str
    module: str
    title: str
    answers: str
    needs: Needs
    cost: str
    mark: str
    caveats: tuple[str, ...]
    papers: tuple[str, ...] = ()
    about: tuple[Question, ...] = ("classes",)
    class_maps: bool = True
    card: str = ""

    @property
    def page(self) -> str:
        """Returns the name of its page in ``docs/methods``."""
        return self.card or self.module

    def load(self) -> Any:
        """Imports the class."""
        return getattr(import_module(f"facexai.explainers.{self.module}"), self.cls)

    def defaults(self) -> dict[str, Any]:
        """Returns the default of every option of the class; ``dataclasses.MISSING`` where it has to be given."""
        return {field.name: field.default for field in fields(self.load())}


_RECONSTRUCTED = "Details of the method are reconstructed."

EXPLAINERS = (
    Row(
        name="cam",
        cls="CAM",
        module="cam",
        title="CAM",
        answers="what in the face adds to this person's score, exactly",
        needs="a head that folds",
        cost="1 forward pass for any number of people",
        mark="published; folding of heads ours",
        caveats=(
            "Exact: cells and constant add up to the score. Its cells are few, and it says nothing about earlier "
            "layers.",
        ),
        papers=(
            "B. Zhou, A. Khosla, A. Lapedriza, A. Oliva, A. Torralba. *Learning deep features for discriminative "
            "localization.* CVPR 2016. arXiv:1512.04150. (CAM)",
        ),
    ),
    Row(
        name="hirescam",
        cls="HiResCAM",
        module="hirescam",
        title="HiResCAM",
        answers="the same at any layer, for any head",
        needs="gradients",
        cost="1 forward, 1 backward to the layer per person",
        mark="published",
        caveats=(
            "Exact where everything behind the layer is affine, elsewhere first order: the farther from the head, the "
            "less the cells add up to.",
        ),
        papers=(
            "R. L. Draelos, L. Carin. *Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional "
            "neural networks.* 2020. arXiv:2011.08891.",
        ),
    ),
    Row(
        name="gradcam",
        cls="GradCAM",
        module="gradcam",
        title="Grad-CAM",
        answers="the baseline that everybody knows",
        needs="gradients",
        cost="as HiResCAM",
        mark="published",
        caveats=(
            "Averages gradients over the map, which discards where a channel matters; shows no evidence against.",
        ),
        papers=(
            "R. R. Selvaraju, M. Cogswell, A. Das, R. Vedantam, D. Parikh, D. Batra. *Grad-CAM: visual explanations "
            "from deep networks via gradient-based localization.* ICCV 2017. arXiv:1610.02391.",
        ),
    ),
    Row(
        name="gradcam++",
        cls="GradCAMPlusPlus",
        module="gradcampp",
        title="Grad-CAM++",
        answers="the same, channels weighted by positive gradients",
        needs="gradients",
        cost="as HiResCAM",
        mark="published; the score's unit ours",
        caveats=("As Grad-CAM; depends on the scale of the score.",),
        papers=(
            "A. Chattopadhay, A. Sarkar, P. Howlader, V. N. Balasubramanian. *Grad-CAM++.* WACV 2018. "
            "arXiv:1710.11063.",
        ),
    ),
    Row(
        name="layercam",
        cls="LayerCAM",
        module="layercam",
        title="LayerCAM",
        answers="the same at fine layers",
        needs="gradients",
        cost="as HiResCAM",
        mark="published",
        caveats=("Counts positive gradients only: what speaks against the person is invisible.",),
        papers=(
            "P.-T. Jiang, C.-B. Zhang, Q. Hou, M.-M. Cheng, Y. Wei. *LayerCAM: exploring hierarchical class activation "
            "maps for localization.* IEEE TIP 30, 2021. doi 10.1109/TIP.2021.3089943.",
        ),
    ),
    Row(
        name="xgradcam",
        cls="XGradCAM",
        module="xgradcam",
        title="XGrad-CAM",
        answers="the same, channels weighted by their gradients where they are active",
        needs="gradients",
        cost="as HiResCAM",
        mark="published",
        caveats=(
            "A channel has one weight for all places: the sum of the cells is right to first order, each cell is not.",
        ),
        papers=(
            "R. Fu, Q. Hu, X. Dong, Y. Guo, Y. Gao, B. Li. *Axiom-based Grad-CAM: towards accurate visualization and "
            "explanation of CNNs.* BMVC 2020. arXiv:2008.02312. (XGrad-CAM)",
        ),
    ),
    Row(
        name="eigencam",
        cls="EigenCAM",
        module="eigencam",
        title="Eigen-CAM",
        answers="where a layer's activations vary together most, whatever the class",
        needs="a layer",
        cost="1 forward pass",
        mark="published; the sign ours",
        caveats=("A map of the layer, the same for every class: it explains no decision.",),
        papers=(
            "M. B. Muhammad, M. Yeasin. *Eigen-CAM: class activation map using principal components.* IJCNN 2020. "
            "arXiv:2008.00299.",
        ),
        class_maps=False,
    ),
    Row(
        name="scorecam",
        cls="ScoreCAM",
        module="scorecam",
        title="Score-CAM",
        answers="what the network says when it sees the face through one channel",
        needs="a layer",
        cost="1 forward pass per channel, for any number of people",
        mark="published; the default combination ours",
        caveats=("The network never saw faces through smooth black masks; the weights follow the scale of the score.",),
        papers=(
            "H. Wang et al. *Score-CAM: score-weighted visual explanations for convolutional neural networks.* CVPR "
            "workshops 2020. arXiv:1910.01279.",
        ),
    ),
    Row(
        name="sdd",
        cls="SDD",
        module="sdd",
        title="SDD",
        answers="what speaks for this person and not for the look-alikes",
        needs="a base",
        cost="that of its base",
        mark="reconstructed",
        caveats=(
            "Compares with the rivals that were enrolled, and with no others. The power makes the map narrow, not "
            "truer.",
            "Its formula is reconstructed from published text and figures.",
        ),
        papers=(
            "E. Verenich et al. *Mitigating the class overlap problem in discriminative localization: COVID-19 and "
            "pneumonia case study.* In: Explainable AI Within the Digital Transformation and Cyber Physical Systems, "
            "2021. doi 10.1007/978-3-030-76409-8_7. (Scaled Directed Divergence)",
            "R. Shadman et al. *Explainable face recognition via improved localization.* Electronics 14(14), 2745, "
            "2025. arXiv:2505.03837. (SDD for face recognition)",
        ),
    ),
    Row(
        name="fggb",
        cls="FGGB",
        module="fggb",
        title="FGGB",
        answers="which pixels move the numbers on which two faces agree",
        needs="gradients",
        cost="1 gradient per number of the embedding, once per face",
        mark="published; details reconstructed",
        caveats=(
            "Gradients of single pixels; where a map has one sign everywhere its shape says little about the pair.",
            _RECONSTRUCTED,
        ),
        papers=(
            "Y. Lu, Z. Xu, T. Ebrahimi. *Explainable face verification via feature-guided gradient backpropagation.* "
            "FG 2024. arXiv:2403.04549. (FGGB)",
        ),
        about=("pairs",),
    ),
    Row(
        name="xssab",
        cls="XSSAB",
        module="xssab",
        title="xSSAB",
        answers="which pixels move the agreeing part of the cosine more",
        needs="gradients",
        cost="2 gradients per face and partner",
        mark="published",
        caveats=("Gradients of two scores. Where a map has one sign everywhere its shape says little about the pair.",),
        papers=(
            "M. Huber, A. T. Luu, P. Terhörst, N. Damer. *Efficient explainable face verification based on similarity "
            "score argument backpropagation.* WACV 2024. arXiv:2304.13409. (xSSAB, and the benchmark Patch-LFW)",
        ),
        about=("pairs",),
    ),
    Row(
        name="corrrise",
        cls="CorrRISE",
        module="corrrise",
        title="CorrRISE",
        answers="whether the cosine is high when a pixel is visible",
        needs="outputs",
        cost="501 forward passes, once per face",
        mark="published; details reconstructed; classes ours",
        caveats=("A sample of random masks: another seed gives a slightly different map. Details are reconstructed.",),
        papers=(
            "Y. Lu, Z. Xu, T. Ebrahimi. *Towards visual saliency explanations of face verification.* WACV 2024. "
            "arXiv:2305.08546. (CorrRISE)",
        ),
        about=("classes", "pairs"),
    ),
    Row(
        name="paircam",
        cls="PairCAM",
        module="paircam",
        title="PairCAM",
        answers="what every cell adds to the cosine, and what it matched",
        needs="a head that folds",
        cost="1 forward pass per face",
        mark="ours",
        caveats=(
            "What a cell matched is what adds to the cosine together with it, not what a person would call alike.",
        ),
        papers=(
            "S. Zhu, T. Yang, C. Chen. *Visual explanation for deep metric learning.* IEEE TIP 30, 2021. "
            "arXiv:1909.12977. (correspondences of pooled maps)",
        ),
        about=("pairs",),
    ),
    Row(
        name="frequency",
        cls="FrequencyHeatPlot",
        module="frequency",
        title="Frequency heat plot",
        answers="which spatial frequencies decide",
        needs="outputs",
        cost="1 forward pass per band and face",
        mark="reconstructed; fast modes and classes ours",
        caveats=(
            "A face without a band of frequencies is a picture that the network never saw. Bands hold unequal energy.",
            _RECONSTRUCTED,
        ),
        papers=(
            "M. Huber, N. Damer. *Beyond spatial explanations: explainable face recognition in the frequency domain.* "
            "WACV 2025. arXiv:2407.11941. (frequency heat plots)",
            "M. Huber et al. *Frequency matters: explaining biases of face recognition in the frequency domain.* 2025. "
            "arXiv:2501.16896.",
        ),
        about=("frequencies",),
        card="frequency_heat_plot",
    ),
    Row(
        name="fastdime",
        cls="FastDiME",
        module="fastdime",
        title="FastDiME",
        answers="what would have to change for another decision",
        needs="a denoiser",
        cost="60 passes of a diffusion model and 60 gradients per attempt",
        mark="published; pairs and regions ours",
        caveats=(
            "Edits look like the denoiser's training data. What it could not draw was not tried.",
            "Without a control that edits nothing, a difference may be the denoiser's reconstruction.",
        ),
        papers=(
            "N. Weng, P. Pegios, A. Feragen, E. Petersen, S. Bigdeli. *Fast diffusion-based counterfactuals for "
            "shortcut removal and generation.* ECCV 2024. arXiv:2312.14223. (FastDiME, MAD)",
        ),
        about=("counterfactuals",),
    ),
)
"""In the order in which they are presented."""


def about(question: Question) -> dict[str, Row]:
    """Returns the rows of the explainers that answer a question, by name.

    >>> list(about("pairs"))
    ['fggb', 'xssab', 'corrrise', 'paircam']
    """
    return {row.name: row for row in EXPLAINERS if question in row.about}


def class_methods() -> tuple[str, ...]:
    """Returns the names by which classes are explained: SDD, every other explainer of classes, and SDD over it by name.

    >>> class_methods()[:3], "sdd-scorecam" in class_methods()
    (('sdd', 'cam', 'hirescam'), True)
    """
    rows = {name: row for name, row in about("classes").items() if row.needs != "a base"}
    return ("sdd", *rows, *(f"sdd-{name}" for name, row in rows.items() if row.class_maps))
