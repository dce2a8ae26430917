"""Lint row files and the images they name, and write the validation receipt."""

from convkit.utils.callable_module import make_callable

make_callable(__name__)
