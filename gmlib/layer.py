"""The Gaussian mixture layer as a module, in either set of coordinates of its readout."""

from __future__ import annotations

import copy
import functools
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from gmlib._validation import check_bool, check_dtype, check_generator, check_size
from gmlib.functional import fold as fold_readout
from gmlib.functional import gm_layer, gm_layer_folded
from gmlib.functional import unfold as unfold_readout

__all__ = ["FoldedGaussianMixtureLayer", "GaussianMixtureLayer", "fold", "unfold"]

Module = TypeVar("Module", bound=nn.Module)


class MixtureLayer(nn.Module):
    """What layers in either set of coordinates have in common; see those.

    Attributes:
        readout_names: Names of the readout's weights, shape ``(K, C, d)``, and offsets,
            shape ``(K, C)``. A layer is linear in these two together.
        bias: Whether every input has a 1 behind it, which the last column of `mu`, `sigma` and the
            readout's weights meets.
    """

    readout_names: ClassVar[tuple[str, str]]
    bias: bool = False  # of layers that were pickled before there was one

    mu: nn.Parameter
    sigma: nn.Parameter

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_components: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = check_size("in_features", in_features)
        self.out_features = check_size("out_features", out_features)
        self.num_components = check_size("num_components", num_components)
        check_bool("bias", bias)
        self.bias = bias
        check_dtype("dtype", torch.get_default_dtype() if dtype is None else dtype)
        K, C, d = self.num_components, self.out_features, self.fan_in
        for name, shape in self._shapes(K, C, d).items():
            try:
                empty = torch.empty(shape, device=device, dtype=dtype)
            except (RuntimeError, AssertionError, TypeError) as error:
                raise RuntimeError(
                    f"a layer with {K} x {C} x {d} readout weights (num_components, out_features, "
                    f"in_features) cannot be had on device "
                    f"{device or torch.get_default_device()}: {error}"
                ) from error
            setattr(self, name, nn.Parameter(empty))
        self.reset_parameters()

    @property
    def fan_in(self) -> int:
        """Coordinates of a neuron's direction: one for each feature, and one for the bias."""
        return self.in_features + self.bias

    @classmethod
    def _shapes(cls, K: int, C: int, d: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name."""
        weights, offsets = cls.readout_names
        return {"mu": (K, d), "sigma": (K, d), weights: (K, C, d), offsets: (K, C)}

    @property
    def readout(self) -> tuple[Tensor, Tensor]:
        """The readout's weights and offsets."""
        weights, offsets = self.readout_names
        return getattr(self, weights), getattr(self, offsets)

    @torch.no_grad()
    def reset_parameters(
        self, scale: float = 0.5, *, generator: torch.Generator | None = None
    ) -> None:
        r"""Draw `mu`, `U` and `v`, in this order, from :math:`\mathcal N(0, \text{scale}^2)`.

        `sigma` is set to `scale`. A layer in folded coordinates draws the same and folds it.
        """
        self._draw(scale, generator)
        self._adopt()

    def _draw(self, scale: float, generator: torch.Generator | None) -> None:
        """Draw affine coordinates: `U` and `v` into the memory of the readout, whatever it is."""
        check_generator(generator)
        for tensor in (self.mu, *self.readout):
            tensor.normal_(0.0, scale, generator=generator)
        self.sigma.fill_(scale)

    def _adopt(self) -> None:
        """Make the layer's readout of the `U` and `v` that its memory holds."""

    def extra_repr(self) -> str:
        """The sizes, and whether there is a bias, as `print` shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"num_components={self.num_components}{', bias=True' if self.bias else ''}"
        )

    def __prepare_scriptable__(self) -> nn.Module:
        """Refuse `torch.jit.script`, which would fail with a riddle."""
        raise TypeError(
            f"a {type(self).__name__} cannot be scripted: torch.jit.trace, torch.compile and "
            "torch.export can take it"
        )


class GaussianMixtureLayer(MixtureLayer):
    r"""A two-layer ReLU block whose hidden neurons are integrated out in closed form.

    The hidden neurons :math:`\beta` follow a mixture of `K` Gaussians with diagonal covariance,
    the readout of a neuron is affine in it, and the layer returns the exact mean

    .. math::
        h(x) = \frac1K \sum_{k=1}^K \mathbb E_{\beta\sim\mathcal N(\mu_k,
        \mathrm{diag}\,\sigma_k^2)}\big[(U_k\beta + v_k)\,\mathrm{relu}(\langle\beta,
        x\rangle)\big];

    see :func:`gmlib.functional.gm_layer`. It is a whole block of ``Linear, ReLU, Linear``, but for
    the biases: no activation is needed behind it, nor a linear layer on either side.

    Without biases, as in the note, it is positively homogeneous: :math:`h(cx) = c\,h(x)` for
    :math:`c > 0`, and :math:`h(0) = 0`. So is any network of such layers and others without
    biases, of which one input variable makes two straight lines that meet at zero. Where inputs
    are standardized each by itself, as the note's images, their norm means nothing and nothing is
    lost; where it does mean something, and on few variables, a bias is needed. A ``LayerNorm``
    behind the layer divides by the norm of its outputs, and so throws that of the inputs away.

    With ``bias=True`` it is the same layer on ``(x, 1)``: neurons have a direction of one more
    coordinate, which meets the 1, so that they have thresholds, and readouts that depend on them.
    Initializations draw and count that coordinate as they do the others.

    Args:
        in_features: Size `d` of each input.
        out_features: Size `C` of each output.
        num_components: Number `K` of Gaussian components.
        device: Device of the parameters.
        dtype: Type of the parameters: float32, float64, bfloat16 or float16.
        bias: Whether neurons have thresholds. Where parameters have size `d`, as given below, it is
            ``d + 1`` then.

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

    readout_names = ("U", "v")

    U: nn.Parameter
    v: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Exact outputs, shape ``(..., out_features)``, for `x` of shape ``(..., in_features)``."""
        return gm_layer(x, self.mu, self.sigma, self.U, self.v, bias=self.bias)


class FoldedGaussianMixtureLayer(MixtureLayer):
    r"""The layer of :class:`GaussianMixtureLayer` with its readout in folded coordinates.

    The same functions and the same initializations, with other parameters for gradient descent to
    move:

    .. math::
        h(x) = \sum_{k=1}^K \big[w_k F_k + (A_k x)\,G_k\big],\qquad
        A_k = \tfrac1K U_k\,\mathrm{diag}(\sigma_k^2),\quad w_k = \tfrac1K(U_k\mu_k + v_k);

    see :func:`gmlib.functional.gm_layer_folded`. A step in `U` moves `A` at
    :math:`\sigma^4/K^2` times its learning rate, which at usual scales is next to nothing; here `A`
    has the gradient of a dense layer's weights behind a gate. A step also takes fewer passes over
    memory.

    Args:
        in_features: Size `d` of each input.
        out_features: Size `C` of each output.
        num_components: Number `K` of Gaussian components.
        device: Device of the parameters.
        dtype: Type of the parameters: float32, float64, bfloat16 or float16.
        bias: As of :class:`GaussianMixtureLayer`.

    Shape:
        - Input: :math:`(*, d)`, any number of leading dimensions, empty ones too.
        - Output: :math:`(*, C)`.

    Attributes:
        mu: Component means, shape ``(K, d)``.
        sigma: Component standard deviations by coordinate, shape ``(K, d)``. Unconstrained:
            only :math:`\sigma^2` enters.
        A: Covariances of readout and direction, over `K`, shape ``(K, C, d)``.
        w: Mean readouts, over `K`, shape ``(K, C)``.

    A new layer holds the default initialization of the layer's authors; call
    :func:`gmlib.init.kumar_` on the whole network before training.

    Examples:
        >>> layer = FoldedGaussianMixtureLayer(784, 10, num_components=5)
        >>> layer(torch.randn(64, 784)).shape
        torch.Size([64, 10])
    """

    readout_names = ("A", "w")

    A: nn.Parameter
    w: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Exact outputs, shape ``(..., out_features)``, for `x` of shape ``(..., in_features)``."""
        return gm_layer_folded(x, self.mu, self.sigma, self.A, self.w, bias=self.bias)

    def _adopt(self) -> None:
        # A layer in another dtype, in part or whole, is for the forward to refuse or convert.
        tensors = (self.mu, self.sigma, *self.readout)
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
        readout = fold_readout(*(tensor.to(dtype) for tensor in tensors))
        for tensor, value in zip(self.readout, readout, strict=True):
            tensor.copy_(value)


def fold(module: Module) -> Module:
    """A copy of a network with its GM layers in folded coordinates, which computes the same.

    Layers keep their place, names of `mu` and `sigma`, bias, module hooks, mode, device, dtype and
    what needs a gradient; a layer that is used twice in the network is so in the copy. Layers that
    are folded already, and all other modules, are copied as they are. Hooks of tensors are not
    copied. Fold before an optimizer is made, or anything else that holds on to parameters.

    Args:
        module: A GM layer, or a network that contains some.

    Returns:
        The copy.

    Raises:
        ValueError: If `module` holds no GM layer, or one whose parameters are computed from other
            tensors or whose readout is shared with another module.
        TypeError: If a layer is of a subclass, of which it is not known what it adds, or its
            parameters are of no floating-point type that it can have.

    Examples:
        >>> network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), GaussianMixtureLayer(4, 3, 2))
        >>> folded, x = fold(network), torch.randn(5, 6)
        >>> bool(torch.allclose(folded(x), network(x), atol=1e-5))
        True
    """
    return _converted(module, GaussianMixtureLayer, FoldedGaussianMixtureLayer)


def unfold(module: Module) -> Module:
    """A copy of a network with its GM layers in affine coordinates: the way back from :func:`fold`.

    Args:
        module: A GM layer, or a network that contains some.

    Returns:
        The copy.

    Raises:
        ValueError: As :func:`fold`, or if an `A` is not zero where `sigma` is.
        TypeError: As :func:`fold`.

    Examples:
        >>> layer, x = FoldedGaussianMixtureLayer(4, 3, 2), torch.randn(5, 4)
        >>> bool(torch.allclose(unfold(layer)(x), layer(x), atol=1e-5))
        True
    """
    return _converted(module, FoldedGaussianMixtureLayer, GaussianMixtureLayer)


@torch.no_grad()
def _converted(module: Module, origin: type[MixtureLayer], target: type[MixtureLayer]) -> Module:
    # Late: the checks are those of the initializations, which know the layers.
    from gmlib._networks import check_readouts, check_writable, gm_layers

    check_writable(module)  # first: to parametrize makes a subclass
    check_readouts(module)
    for name, layer in gm_layers(module).items():
        if type(layer) not in (origin, target):
            raise TypeError(
                f"GM layer {name!r} is a {type(layer).__name__}; only {origin.__name__} itself is "
                "converted, no subclass"
            )
    converted = copy.deepcopy(module)
    convert = fold_readout if origin is GaussianMixtureLayer else unfold_readout
    for name, layer in gm_layers(converted).items():
        if type(layer) is origin:
            try:
                readout = convert(layer.mu, layer.sigma, *layer.readout)
                for old, new, tensor in zip(
                    origin.readout_names, target.readout_names, readout, strict=True
                ):
                    _replace(layer, old, new, tensor)
            except (TypeError, ValueError) as error:
                raise type(error)(f"GM layer {name!r}: {error}") from None
            except KeyError as error:  # a name that the layer has for something else
                raise ValueError(f"GM layer {name!r}: {error.args[0]}") from None
            # What is left, hooks and all, stays with the object: it only changes its kind.
            layer.__class__ = target
    return converted


def _replace(layer: nn.Module, old: str, new: str, tensor: Tensor) -> None:
    """Put a tensor in the place of a parameter or buffer, under a name of its own."""
    before = getattr(layer, old)
    tensor = tensor.to(before.dtype)  # which autocast had computed in float32
    persistent = old not in layer._non_persistent_buffers_set
    delattr(layer, old)
    if isinstance(before, nn.Parameter):
        layer.register_parameter(new, nn.Parameter(tensor, before.requires_grad))
    else:
        layer.register_buffer(new, tensor.requires_grad_(before.requires_grad), persistent)
