"""Find the model family of a checkpoint."""

from pathlib import Path

from convkit.errors import ConvkitError
from convkit.train.model_directory import require_checkpoint_directory
from convkit.train.models.checkpoint_files import read_json
from convkit.train.models.family import ModelFamily
from convkit.train.models.hf.families import FAMILIES
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.phi3_v.configuration import Phi3VConfig
from convkit.train.models.phi3_v.family import Phi3VFamily

MODEL_FAMILIES: dict[str, type[Phi3VFamily] | type[HuggingFaceFamily]] = {
    Phi3VConfig.model_type: Phi3VFamily,
    **dict.fromkeys(FAMILIES, HuggingFaceFamily),
}
"""The family class for each `model_type` of config.json."""


def model_family(directory: Path, num_crops: int | None = None) -> ModelFamily:
    """Return the model family of a checkpoint, without loading its weights.

    Args:
        directory: a checkpoint.
        num_crops: maximum number of tiles per image, for Phi-3-vision only. Default: the checkpoint's value.

    Raises:
        ConvkitError: the directory is not a checkpoint, or convkit does not support its `model_type`.
    """
    require_checkpoint_directory(directory)
    file = directory / "config.json"
    model_type = read_json(file).get("model_type")
    if not isinstance(model_type, str):
        raise ConvkitError(
            f"{file} is missing or has no model_type, so the model family is unknown. "
            "Pass a checkpoint directory, such as final/model of a run."
        )
    if model_type not in MODEL_FAMILIES:
        raise ConvkitError(
            f"{file} has model_type {model_type!r}, which convkit cannot train. Supported: {', '.join(MODEL_FAMILIES)}."
        )
    return MODEL_FAMILIES[model_type](directory, num_crops)
