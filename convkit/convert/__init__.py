"""Convert a source into a dataset directory."""

from convkit.utils.callable_module import make_callable

make_callable(__name__)
