"""Photos in and out: loading, resizing, finding a face, aligning it, and the way back to the photo."""

from facexai.images.alignment import TEMPLATE, Aligned, When, Which, align, fitted, similarity, template
from facexai.images.files import load, photo_files, resize, save
from facexai.images.mtcnn import Face, detect

__all__ = [
    "TEMPLATE",
    "Aligned",
    "Face",
    "When",
    "Which",
    "align",
    "detect",
    "fitted",
    "load",
    "photo_files",
    "resize",
    "save",
    "similarity",
    "template",
]
