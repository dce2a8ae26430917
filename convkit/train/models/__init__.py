"""Model families: tokenization, collation, loading and saving. Importing this package registers Phi-3-vision."""

from convkit.train.models.registration import register
from convkit.train.models.registry import MODEL_FAMILIES, model_family

__all__ = ["MODEL_FAMILIES", "model_family"]

register()
