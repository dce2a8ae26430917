"""From rows to model input, and training on it: the only package that imports torch (extra `train`)."""

from convkit.utils.callable_module import make_callable

make_callable(__name__)
