"""What every public function of tensors does before it computes."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from gmlib._function import autocasts, is_traced
from gmlib._validation import LOW_PRECISION, check_alike, check_dtype, check_tensors

__all__ = ["of_tensors"]

Given = ParamSpec("Given")
Result = TypeVar("Result")


def of_tensors(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make a function public. Its tensors come first, and are the arguments annotated as such.

    - Tensor subclasses, modes and the proxies of `torch.fx` may take its place, by
      ``__torch_function__``.
    - Its tensors have to be dense, of one floating-point dtype and on one device.
    - In bfloat16 or float16 it computes in float32, and returns the dtype that came. Under autocast
      such tensors and those in float32 go together, and it returns float32.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.annotation == "Tensor"]

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        relevant = (*args, *kwargs.values())
        if has_torch_function(relevant):
            return handle_torch_function(call, relevant, *args, **kwargs)
        if is_traced():
            with warnings.catch_warnings():  # about sizes that are looked at, which stay
                warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
                return computed(args, kwargs)
        return computed(args, kwargs)

    def computed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
        tensors = dict(zip(names, args, strict=False))
        tensors |= {name: kwargs[name] for name in names if name in kwargs}
        if len(tensors) < len(names):
            return function(*args, **kwargs)  # which says what is missing
        check_tensors(tensors)
        first = tensors[names[0]]
        check_dtype(names[0], first.dtype)
        under_autocast = autocasts(first)
        check_alike(tensors, mixed=under_autocast)
        low = first.dtype in LOW_PRECISION
        if low or under_autocast:
            args = tuple(map(_widened, args))
            kwargs = {name: _widened(value) for name, value in kwargs.items()}
        with torch.autocast(first.device.type, enabled=False) if under_autocast else nullcontext():
            result = function(*args, **kwargs)
        return _narrowed(result, first.dtype) if low and not under_autocast else result

    return call


def _widened(value: Any) -> Any:
    """In float32, if a tensor of less."""
    return value.float() if isinstance(value, Tensor) and value.dtype in LOW_PRECISION else value


def _narrowed(result: Any, dtype: torch.dtype) -> Any:
    """A tensor, or several, in a dtype."""
    if isinstance(result, Tensor):
        return result.to(dtype)
    return tuple(tensor.to(dtype) for tensor in result)
