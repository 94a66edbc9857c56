"""Gaussian mixture layers and their calibrated initialization, KUMAR."""

from gmlib import functional, init, optim
from gmlib.layer import FoldedGaussianMixtureLayer, GaussianMixtureLayer, fold, unfold
from gmlib.optim import param_groups

__all__ = [
    "FoldedGaussianMixtureLayer",
    "GaussianMixtureLayer",
    "fold",
    "functional",
    "init",
    "optim",
    "param_groups",
    "unfold",
]
__version__ = "0.1.0"
