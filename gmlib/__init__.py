"""Gaussian mixture layers and their calibrated initialization, KUMAR."""

from gmlib import functional, init
from gmlib.layer import FoldedGaussianMixtureLayer, GaussianMixtureLayer, fold, unfold

__all__ = [
    "FoldedGaussianMixtureLayer",
    "GaussianMixtureLayer",
    "fold",
    "functional",
    "init",
    "unfold",
]
__version__ = "0.1.0"
