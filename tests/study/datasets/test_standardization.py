"""Standardization: mean 0 and standard deviation 1, to the definition."""

from __future__ import annotations

import pytest
import torch

from gmlib.study import datasets


def test_standardize_images_equals_the_definition() -> None:
    images = torch.randint(0, 256, (700, 5, 3), dtype=torch.uint8)
    flat = images.double().flatten(1)
    std, mean = torch.std_mean(flat, dim=1, correction=0, keepdim=True)
    torch.testing.assert_close(datasets.standardize_images(images), ((flat - mean) / std).float())


@pytest.mark.parametrize("value", [0.0, 0.3, 255.0, -1e30])
def test_a_constant_image_becomes_zeros(value: float) -> None:
    constant = torch.full((784,), value, dtype=torch.float64)
    images = torch.stack([constant, torch.arange(784, dtype=torch.float64)])
    result = datasets.standardize_images(images)
    assert result[0].tolist() == [0.0] * 784
    assert result[1].std(correction=0).item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16])
def test_standardize_dataset_equals_the_definition(dtype: torch.dtype) -> None:
    train = torch.randint(100, 120, (700, 4, 4)).to(dtype)
    test = torch.randint(0, 50, (300, 4, 4)).to(dtype)
    std, mean = torch.std_mean(train.double(), correction=0)
    for got, images in zip(datasets.standardize_dataset(train, test), (train, test), strict=True):
        torch.testing.assert_close(got, ((images.double() - mean) / std).float().flatten(1))


def test_standardize_dataset_keeps_a_small_spread_on_a_large_offset() -> None:
    train = 1e6 + torch.randn(500, 9).round(decimals=1).float()
    standardized, _ = datasets.standardize_dataset(train, train)
    assert standardized.double().mean().abs() < 1e-6
    assert standardized.double().std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_standardize_pixels_equals_the_definition() -> None:
    train = torch.randint(0, 256, (700, 4, 4), dtype=torch.uint8)
    test = torch.randint(0, 256, (300, 4, 4), dtype=torch.uint8)
    train[:, 1, 2] = 7  # a pixel without a spread: at the rim of MNIST there are many
    std, mean = torch.std_mean(train.double(), dim=0, correction=0)
    std[1, 2] = torch.inf
    for got, images in zip(datasets.standardize_pixels(train, test), (train, test), strict=True):
        torch.testing.assert_close(got, ((images.double() - mean) / std).float().flatten(1))
        assert got[:, 6].tolist() == [0.0] * len(images)


def test_scale_range_maps_the_training_pixels_to_the_unit_interval() -> None:
    train, test = torch.tensor([[[2.0, 4.0], [12.0, 7.0]]]), torch.tensor([[[0.0, 22.0]] * 2])
    got = datasets.scale_range(train, test)
    torch.testing.assert_close(got[0], torch.tensor([[0.0, 0.2, 1.0, 0.5]]))
    torch.testing.assert_close(got[1], torch.tensor([[-0.2, 2.0, -0.2, 2.0]]))


def test_standardization_refuses_what_has_no_mean_or_deviation() -> None:
    images = torch.rand(3, 4)
    with pytest.raises(ValueError, match="no pixels"):
        datasets.standardize_images(images[:0])
    with pytest.raises(ValueError, match="all training pixels are equal"):
        datasets.standardize_dataset(torch.full((300, 4), 0.1), images)
    with pytest.raises(ValueError, match="all training pixels are equal"):
        datasets.scale_range(torch.full((300, 4), 0.1), images)
    images[1, 2] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        datasets.standardize_images(images)
