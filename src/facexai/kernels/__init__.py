"""Work on arrays that is worth its own code on a GPU. The torch path says what each result is and runs anywhere."""

from facexai.kernels.masking import Order, constant_channels, extrema, lattice, masked_images

__all__ = ["Order", "constant_channels", "extrema", "lattice", "masked_images"]
