"""Generate answers to batches of prompts by greedy decoding."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GenerationConfig, LogitsProcessor

from convkit.errors import ConvkitError
from convkit.schema import Row, Turn
from convkit.train.evaluate.options import Context
from convkit.train.evaluate.questions import Question
from convkit.train.models.family import ModelFamily
from convkit.train.models.tokenize import IGNORE_INDEX


class Prompts(Dataset[Any]):
    """Batches of prompts, indexed by question numbers. Errors are returned as values, as worker processes require."""

    def __init__(
        self, questions: Sequence[Question], images: Path, family: ModelFamily, context: Context, max_tokens: int
    ) -> None:
        self._questions, self._images, self._family = questions, images, family
        self._context, self._max_tokens = context, max_tokens

    def __getitem__(self, numbers: tuple[int, ...]) -> dict[str, Any] | ConvkitError:
        rows = [self._questions[number].prompt_row(self._context) for number in numbers]
        try:
            samples = [self._family.encode_prompt(row, self._images, self._max_tokens) for row in rows]
        except ConvkitError as error:
            return ConvkitError(str(error))
        return self._family.collate(samples, packed=False)

    def with_answers(self, number: int, answers: Sequence[str]) -> dict[str, Any]:
        """Return a batch with one question, repeated once per answer.

        Raises:
            ConvkitError: the row does not fit the model, or its images cannot be read.
        """
        row = self._questions[number].prompt_row(self._context)
        *earlier, last = row.conversations
        turns = [(*earlier, last.model_copy(update={"assistant": answer})) for answer in answers]
        rows = [row.model_copy(update={"conversations": conversation}) for conversation in turns]
        return self._family.collate([self._family.encode(row, self._images) for row in rows], packed=False)


class Generator:
    """Generates answers by greedy decoding.

    Args:
        model: on the device that it computes on.
        max_new_tokens: the maximum length of an answer.
    """

    def __init__(self, model: Any, family: ModelFamily, max_new_tokens: int) -> None:
        self._model, self._family = model.eval(), family
        self._stops = set(family.stop_token_ids)
        pad = family.tokenizer.pad_token_id
        self._options = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(family.stop_token_ids),
            pad_token_id=family.stop_token_ids[0] if pad is None else pad,
        )

    @torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator] # layers are compiled for training only
    @torch.no_grad()  # not inference_mode: tensors that the model caches in it could not be trained on afterwards
    def __call__(self, batch: dict[str, Any]) -> tuple[list[str], Tensor]:
        """Return the answers to B prompts, and log-probabilities (B, vocabulary) of their first tokens, on the CPU."""
        inputs = self._on_device(batch)
        del inputs["labels"]
        first = _FirstTokens()
        generated = self._model.generate(**inputs, generation_config=self._options, logits_processor=[first])
        answers = generated[:, batch["input_ids"].shape[1] :].tolist()
        return [self._text(ids) for ids in answers], first.log_probabilities.cpu()

    @torch.compiler.set_stance("force_eager")  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def log_likelihoods(self, batch: dict[str, Any]) -> Tensor:
        """Return the summed log-probability (B) of the labels of each of B samples, on the CPU."""
        inputs = self._on_device(batch)
        labels = inputs.pop("labels")[:, 1:]
        logits = self._model(**inputs, use_cache=False).logits[:, :-1]
        each = logits.float().log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        sums: Tensor = each.where(labels != IGNORE_INDEX, 0).sum(-1)
        return sums.cpu()

    def _on_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        device = self._model.device
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}

    def _text(self, ids: list[int]) -> str:
        end = next((place for place, id in enumerate(ids) if id in self._stops), len(ids))
        return str(self._family.tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()


class _FirstTokens(LogitsProcessor):  # type: ignore[misc]
    """Records the log-probabilities of the first generated token, and changes no scores."""

    log_probabilities: Tensor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not hasattr(self, "log_probabilities"):
            self.log_probabilities = scores.float().log_softmax(-1)
        return scores


def first_token_id(family: ModelFamily, answer: str) -> int:
    """Return the first token of an answer. Prompts end so that it is the same after each of them."""
    turn = Turn(images=(), user="?", assistant=answer)
    labels = family.encode(Row(id="?", source="?", conversations=(turn,)), Path()).labels
    return int(labels[labels != IGNORE_INDEX][0])
