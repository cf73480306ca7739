"""Photos in and out: loading, resizing, finding a face, aligning it, and the way back to the photo."""

from typing import TYPE_CHECKING

from facexai import _renamed
from facexai.images.alignment import TEMPLATE, Aligned, AlignMode, FaceChoice, align, fit_to_spec, similarity, template
from facexai.images.files import load, photo_files, resize, save
from facexai.images.mtcnn import Face, detect

__all__ = [
    "TEMPLATE",
    "AlignMode",
    "Aligned",
    "Face",
    "FaceChoice",
    "align",
    "detect",
    "fit_to_spec",
    "load",
    "photo_files",
    "resize",
    "save",
    "similarity",
    "template",
]

if not TYPE_CHECKING:
    __getattr__ = _renamed.getter(__name__)
