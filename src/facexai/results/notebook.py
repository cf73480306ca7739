"""Draws answers in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import TYPE_CHECKING

from facexai._html import words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def drawn(whole: Sized, few: Sized, draw: Callable[[], Figure]) -> str:
    """Returns the picture of a few answers with the words of all; the words alone where there is nothing to
    draw or draw with.

    Args:
        whole: the answer, whose repr is the caption.
        few: the part of it that is drawn.
        draw: makes the picture.
    """
    from facexai import plots

    caption = repr(whole) + ("" if len(few) == len(whole) else f"; the first {len(few)} are drawn")
    if not len(few):
        return words(caption)
    try:
        return plots.html(draw(), caption=caption)
    except ImportError as error:
        return words(f"{caption}\n{error}")


def pictured(draw: Callable[[], Figure], caption: str, below: str) -> str:
    """Returns a picture above a table or words; these alone where there is nothing to draw or draw with.

    Args:
        draw: makes the picture; it raises a ValueError where there is nothing to draw.
        caption: escaped here.
        below: HTML.
    """
    from facexai import plots

    try:
        return plots.html(draw(), caption=caption) + below
    except (ImportError, ValueError):
        return words(caption) + below
