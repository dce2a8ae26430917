"""A byte-level tokenizer trained on given text, with the control tokens of a family."""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_LINE_ENDS = ["\n\n"] * 1000
"""So that an empty line is one token, as it is in every real vocabulary."""


def byte_level(
    texts: Iterable[str], vocab_size: int, controls: Sequence[str], template: str, **named: str
) -> PreTrainedTokenizerFast:
    """BPE of GPT-2's kind; nothing is unknown to it.

    Args:
        texts: what it learns to join.
        vocab_size: before the control tokens are added; at least 260.
        controls: tokens that are no text.
        template: the chat template, in Jinja.
        named: what the tokenizer knows by a name, such as `eos_token`.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator([*texts, *_LINE_ENDS], trainer)
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in controls])
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **named)
