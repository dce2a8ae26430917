"""Divide a dataset into new splits without data leakage: rows that belong together stay in one split.

Rows belong together if they have the same group or show an image with the same bytes, also through other rows. A split
is a conversion whose items are rows, so resuming, accounting and the manifest come from `convkit.convert`. Rows, ids
and image paths do not change, so a path may contain the name of the row's former split.
"""

from convkit.utils.callable_module import make_callable

make_callable(__name__)
