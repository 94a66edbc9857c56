"""The Gaussian mixture layer as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmlib._validation import check_generator
from gmlib.functional import gm_layer

__all__ = ["GaussianMixtureLayer"]


class GaussianMixtureLayer(nn.Module):
    r"""A two-layer ReLU block whose hidden neurons are integrated out in closed form.

    The hidden neurons :math:`\beta` follow a mixture of `K` Gaussians with diagonal covariance,
    the readout of a neuron is affine in it, and the layer returns the exact mean

    .. math::
        h(x) = \frac1K \sum_{k=1}^K \mathbb E_{\beta\sim\mathcal N(\mu_k,
        \mathrm{diag}\,\sigma_k^2)}\big[(U_k\beta + v_k)\,\mathrm{relu}(\langle\beta,
        x\rangle)\big];

    see :func:`gmlib.functional.gm_layer`. It stands where ``Linear, ReLU, Linear`` would; no
    activation is needed behind it.

    Args:
        in_features: Size `d` of each input.
        out_features: Size `C` of each output.
        num_components: Number `K` of Gaussian components.
        device: Device of the parameters.
        dtype: Type of the parameters, float32 or float64.

    Shape:
        - Input: :math:`(*, d)`, any number of leading dimensions, empty ones too.
        - Output: :math:`(*, C)`.

    Attributes:
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations by coordinate, shape ``(K, d)``. Unconstrained:
            only :math:`\sigma^2` enters.
        U: Readout weights, shape ``(K, C, d)``.
        v: Readout offsets, shape ``(K, C)``.

    A new layer holds the default initialization of its authors (:func:`gmlib.init.baseline_`),
    which trains slowly; call :func:`gmlib.init.kumar_` on the whole network before training.

    Examples:
        >>> layer = GaussianMixtureLayer(784, 10, num_components=5)
        >>> layer(torch.randn(64, 784)).shape
        torch.Size([64, 10])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_components: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "in_features": in_features,
            "out_features": out_features,
            "num_components": num_components,
        }
        for name, size in sizes.items():
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
        if dtype not in (None, torch.float32, torch.float64):
            raise TypeError(f"dtype must be float32 or float64, got {dtype}")
        self.in_features = in_features
        self.out_features = out_features
        self.num_components = num_components

        def parameter(*shape: int) -> nn.Parameter:
            try:
                return nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
            except (RuntimeError, AssertionError) as error:
                raise RuntimeError(
                    f"a layer with {num_components} x {out_features} x {in_features} readout "
                    f"weights (num_components, out_features, in_features) cannot be had on device "
                    f"{device or torch.get_default_device()}: {error}"
                ) from error

        self.mu = parameter(num_components, in_features)
        self.sigma = parameter(num_components, in_features)
        self.U = parameter(num_components, out_features, in_features)
        self.v = parameter(num_components, out_features)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(
        self, scale: float = 0.5, *, generator: torch.Generator | None = None
    ) -> None:
        r"""Draw `mu`, `U` and `v`, in this order, from :math:`\mathcal N(0, \text{scale}^2)`.

        `sigma` is set to `scale`.
        """
        check_generator(generator)
        for tensor in (self.mu, self.U, self.v):
            tensor.normal_(0.0, scale, generator=generator)
        self.sigma.fill_(scale)

    def forward(self, x: Tensor) -> Tensor:
        """Exact outputs, shape ``(..., out_features)``, for `x` of shape ``(..., in_features)``."""
        return gm_layer(x, self.mu, self.sigma, self.U, self.v)

    def extra_repr(self) -> str:
        """The sizes, as `print` shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_components={self.num_components}"
        )
