"""Data sets: fetch, verify, load and standardize."""

from gmlib.study.datasets.catalogue import DATASETS, dataset_title
from gmlib.study.datasets.files import DataError, data_root
from gmlib.study.datasets.loading import Dataset, fetch, load
from gmlib.study.datasets.standardization import (
    STANDARDIZATIONS,
    scale_range,
    standardize_dataset,
    standardize_images,
    standardize_pixels,
)

__all__ = [
    "DATASETS",
    "STANDARDIZATIONS",
    "DataError",
    "Dataset",
    "data_root",
    "dataset_title",
    "fetch",
    "load",
    "scale_range",
    "standardize_dataset",
    "standardize_images",
    "standardize_pixels",
]
