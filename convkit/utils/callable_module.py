"""Packages that can be called: `convkit.train(...)` is a function, and `convkit.train.run` is a module.

The public functions have the names of the stages, and so do the packages. Python stores an imported package in its
parent, where it would hide a function of the same name. The package is therefore callable itself.
"""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def _function(self) -> Callable[..., Any]:
        function: Callable[..., Any] = getattr(import_module("convkit.api"), self.__name__.rpartition(".")[2])
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())


def make_callable(name: str) -> None:
    """Let the module of this name be called as the function of `convkit.api` with the same name."""
    sys.modules[name].__class__ = _CallableModule
