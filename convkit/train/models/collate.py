"""Collate samples into batches: padded, or packed into one sequence.

Shape letters: B samples, T tokens (of the longest sample; in a packed sequence of all samples together), N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from convkit.train.models.tokenize import IGNORE_INDEX


@dataclass(frozen=True)
class Sample:
    """A row as tensors."""

    input_ids: Tensor
    """Token ids, (T) int64."""
    labels: Tensor
    """Labels, (T) int64, unshifted, -100 at tokens without loss."""
    image_inputs: dict[str, Tensor]
    """The model's image inputs, such as `pixel_values` and `image_sizes`; empty without images. Batches concatenate
    them along the first dimension."""

    def __len__(self) -> int:
        return len(self.input_ids)


def pad(samples: Sequence[Sample], pad_token_id: int) -> dict[str, Any]:
    """Pad B samples: return `input_ids`, `labels`, `attention_mask` (B, T), and the image inputs.

    Padding is on the right for training. It is on the left for prompts (no labels in any sample), so that all of them
    end where generation begins.
    """
    supervised = any(bool((sample.labels != IGNORE_INDEX).any()) for sample in samples)

    def stack(rows: list[Tensor], value: int) -> Tensor:
        side = "right" if supervised else "left"
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value, padding_side=side)

    return {
        "input_ids": stack([sample.input_ids for sample in samples], pad_token_id),
        "labels": stack([sample.labels for sample in samples], IGNORE_INDEX),
        "attention_mask": stack([torch.ones_like(sample.input_ids) for sample in samples], 0),
        **_image_inputs(samples),
    }


def pack(samples: Sequence[Sample]) -> dict[str, Any]:
    """Pack samples into one sequence; positions restart at 0 in each, and attention stays within it.

    Returns:
        `input_ids`, `labels`, `position_ids` (1, T); `cu_seq_lens_q` and `cu_seq_lens_k` (B + 1) int32, the cumulative
        lengths; `max_length_q` and `max_length_k`, the longest sample; the image inputs. The first token of each sample
        has no label, because the token before it belongs to another sample.
    """
    lengths = [len(sample) for sample in samples]
    bounds = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    labels = torch.cat([sample.labels for sample in samples])
    labels[bounds[:-1].long()] = IGNORE_INDEX
    return {
        "input_ids": torch.cat([sample.input_ids for sample in samples])[None],
        "labels": labels[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths])[None],
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": max(lengths),
        "max_length_k": max(lengths),
        **_image_inputs(samples),
    }


def _image_inputs(samples: Sequence[Sample]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for sample in samples for name in sample.image_inputs)
    return {name: _join([s.image_inputs[name] for s in samples if name in s.image_inputs]) for name in names}


def _join(parts: list[Tensor]) -> Tensor:
    """Concatenate along the first dimension; pad the others, such as tiles per image, with zeros."""
    if len({part.shape[1:] for part in parts}) == 1:
        return torch.cat(parts)
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    joined = parts[0].new_zeros(sum(map(len, parts)), *shape)
    first = 0
    for part in parts:
        joined[first : first + len(part)][tuple(map(slice, (len(part), *part.shape[1:])))] = part
        first += len(part)
    return joined
