"""The recipe's published hyper-parameters, by dataset and fine-tuning method.

Where nothing is published for a method, the defaults of `convkit.train.config.Config` apply; they are the recipe's.
"""

from typing import Any

from convkit.errors import ConvkitError

_FULL, _FROZEN, _ADAPTERS = "full", "frozen vision", "adapters"


def _lora(rank: int, alpha_ratio: float, learning_rate: float, epochs: int) -> dict[str, Any]:
    return {**_rate(learning_rate, epochs), "lora_rank": rank, "lora_alpha_ratio": alpha_ratio}


def _rate(learning_rate: float, epochs: int) -> dict[str, Any]:
    return {"learning_rate": learning_rate, "num_train_epochs": epochs}


RECIPES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    # name: (options for all methods, options by method)
    "ucf101": ({"num_crops": 4, "batch_size": 16}, {}),
    "docvqa": (
        {"num_crops": 16, "batch_size": 64},
        {_FULL: _rate(5e-6, 2), _FROZEN: _rate(1e-4, 2), _ADAPTERS: _lora(32, 0.5, 2e-4, 2)},
    ),
    "nlvr2": ({"num_crops": 16, "batch_size": 64}, {_FULL: _rate(1e-5, 3), _FROZEN: _rate(2e-5, 2)}),
    "hateful_memes": (
        {"num_crops": 16, "batch_size": 64},
        {_FULL: _rate(5e-5, 2), _FROZEN: _rate(1e-4, 3), _ADAPTERS: _lora(128, 2.0, 2e-4, 2)},
    ),
}


def hyper_parameters(name: str, *, adapters: bool, frozen_vision: bool) -> dict[str, Any]:
    """Return a recipe's options, by field of `Config`; its name may be spelled with dashes.

    Raises:
        ConvkitError: there is no such recipe.
    """
    known = name.replace("-", "_")
    if known not in RECIPES:
        raise ConvkitError(f"There is no recipe {name!r}. Choose one of: {', '.join(RECIPES)}.")
    always, by_method = RECIPES[known]
    method = _ADAPTERS if adapters else _FROZEN if frozen_vision else _FULL
    return {**always, **by_method.get(method, {})}
