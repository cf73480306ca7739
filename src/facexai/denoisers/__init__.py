"""Diffusion networks that counterfactuals are made with: any function, those of diffusers, and guided-diffusion's."""

from facexai.denoisers.adm import ADM, load_adm
from facexai.denoisers.callables import CallableDenoiser, from_callable
from facexai.denoisers.diffusers import DiffusersDenoiser, from_diffusers
from facexai.denoisers.protocol import Denoiser

__all__ = [
    "ADM",
    "CallableDenoiser",
    "Denoiser",
    "DiffusersDenoiser",
    "from_callable",
    "from_diffusers",
    "load_adm",
]
