"""The variants of FastDiME as data: their passes, and the options that each of them takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from facexai._errors import suggest

Variant = Literal["fastdime", "fastdime-2", "fastdime-2+", "unmasked", "dime", "maskdime"]
Mask = Literal["difference", "class-gradient", "fixed", "nested-gradient"]
GradientAt = Literal["previous", "current", "blended"]


@final
@dataclass(frozen=True)
class VariantSpec:
    """Holds what distinguishes a variant of FastDiME.

    Attributes:
        passes: for each pass, whether the method's own mask applies.
        options: for each option the values that the variant takes; the first is its default.
        numbers: for each further number that the variant uses, its default.
        nested: each estimate is a whole chain without guidance.
        posterior_noise: each step but the last adds noise of the posterior.
        pasted: at the end the pixels outside of the mask are replaced by the image's.
    """

    passes: tuple[bool, ...]
    options: Mapping[str, tuple[Any, ...]]
    numbers: Mapping[str, float]
    nested: bool = False
    posterior_noise: bool = True
    pasted: bool = True

    def takes(self, option: str, value: Any) -> bool:
        """Returns whether the variant has this option and accepts the value; ranges of numbers are not checked."""
        accepted = self.options.get(option)
        if accepted is None:
            return option in self.numbers
        return any(isinstance(value, type(other)) and value == other for other in accepted)


_UNMASKED = VariantSpec(
    passes=(False,),
    options={
        "mask": ("difference",),
        "gradient_at": ("previous", "current"),
        "l1_on": ("z", "x0"),
        "rescaled": (False, True),
    },
    numbers={"warmup": 30, "threshold": 0.15, "share": 0.1},
)
VARIANTS: dict[str, VariantSpec] = {
    "fastdime": replace(
        _UNMASKED, passes=(True,), options={**_UNMASKED.options, "mask": ("difference", "class-gradient", "fixed")}
    ),
    "fastdime-2": replace(_UNMASKED, passes=(False, False)),
    "fastdime-2+": replace(_UNMASKED, passes=(True, False)),
    "unmasked": _UNMASKED,
    "dime": replace(_UNMASKED, nested=True),
    "maskdime": VariantSpec(
        passes=(True,),
        options={
            "mask": ("nested-gradient",),
            "warmup": (0,),
            "gradient_at": ("blended",),
            "l1_on": ("z",),
            "rescaled": (True,),
        },
        numbers={"share": 0.05, "inner": 0.5, "grad_scale": 8.0},
        posterior_noise=False,
        pasted=False,
    ),
}
"""By name."""
OPTIONS = tuple(dict.fromkeys(name for spec in VARIANTS.values() for name in (*spec.options, *spec.numbers)))
"""Arguments of FastDiME whose defaults, and whether they can be chosen, depend on the variant."""


def resolved(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a variant: what is given, and where that is None or missing, the variant's default.

    Raises:
        ValueError: a value that no variant takes, or that another variant takes and this one does not.

    >>> resolved("maskdime", {"share": 0.1, "mask": None})["share"], resolved("dime", {})["mask"]
    (0.1, 'difference')
    """
    variant = VARIANTS[name]
    values = {option: value for option, value in given.items() if value is not None}
    refused = [_refusal(name, option, value) for option, value in values.items() if not variant.takes(option, value)]
    if refused:
        raise ValueError(f"variant={name!r}: {'; '.join(refused)}; leave that out, or choose another variant")
    return {option: accepted[0] for option, accepted in variant.options.items()} | {**variant.numbers, **values}


def _refusal(name: str, option: str, value: Any) -> str:
    """Returns what a variant expects of an option and which variants take the given value.

    Raises:
        ValueError: no variant takes it.
    """
    others = [other for other, variant in VARIANTS.items() if variant.takes(option, value)]
    if not others:
        accepted = [choice for variant in VARIANTS.values() for choice in variant.options.get(option, ())]
        options = list(dict.fromkeys(accepted))
        raise ValueError(f"expected {option} one of {options}, got {value!r}; {suggest(str(value), map(str, options))}")
    own = VARIANTS[name].options.get(option)
    expected = f"no {option}" if own is None else f"{option}={' or '.join(map(repr, own))}"
    return f"expected {expected}, got {value!r}, which goes with {', '.join(map(repr, others))}"
