"""Training, evaluation and benchmarks of models; the only package that imports torch (extra `train`)."""

from convkit.utils.callable_module import make_callable

make_callable(__name__)
