"""Gaussian mixture layers and their calibrated initialization, KUMAR."""

from gmlib import functional, init
from gmlib.layer import GaussianMixtureLayer

__all__ = ["GaussianMixtureLayer", "functional", "init"]
__version__ = "0.1.0"
