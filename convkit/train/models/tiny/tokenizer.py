"""Train a byte-level tokenizer with the control tokens of a model family."""

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_LINE_ENDS = ["\n\n"] * 1000
"""Makes an empty line a single token, as in every real vocabulary."""


def train_byte_level_bpe(
    texts: Iterable[str],
    vocab_size: int,
    controls: Sequence[str],
    template: str | None,
    adds_bos: bool = False,
    **named: str,
) -> PreTrainedTokenizerFast:
    """Train a GPT-2-style BPE tokenizer without unknown tokens.

    Args:
        texts: the texts that the tokenizer is trained on.
        vocab_size: the vocabulary size without control tokens; at least 260.
        controls: the control tokens.
        template: the chat template, in Jinja.
        adds_bos: add `bos_token` before every text.
        named: named tokens of the tokenizer, such as `eos_token`.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    backend.train_from_iterator([*texts, *_LINE_ENDS], trainer)
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in controls])
    if adds_bos:
        bos = named["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    standard = {name: token for name, token in named.items() if name in ("bos_token", "eos_token", "pad_token")}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=template,
        extra_special_tokens={name: token for name, token in named.items() if name not in standard},
        **standard,
    )
