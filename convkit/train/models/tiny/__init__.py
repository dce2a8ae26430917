"""Random small checkpoints with a tokenizer trained on given text: for tests, demonstrations and documentation."""

from convkit.train.models.tiny.idefics3 import idefics3, smolvlm
from convkit.train.models.tiny.phi3_v import phi3_v

__all__ = ["idefics3", "phi3_v", "smolvlm"]
