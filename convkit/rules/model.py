"""CK4xx: rows and a model: token counts, control tokens and image shapes.

These rules run only if a model is named. They need neither its weights nor torch.
"""

from collections.abc import Iterator, Sequence

from convkit.findings import Severity
from convkit.profiles import ImageSize, TargetModel, UnsupportedShape
from convkit.rules.base import Problem, Rule
from convkit.schema import IMAGE_MARKER, Row


def problems(row: Row, sizes: Sequence[ImageSize | None], target: TargetModel, train: bool) -> Iterator[Problem]:
    """Yield all problems of a row for a model.

    Args:
        sizes: image sizes of the row, in order; None for an image that cannot be read, which another rule reports.
        train: the row is trained on, so it needs an answer.
    """
    yield from _control_tokens(row, target)
    refused = list(_refused_shapes(row, sizes, target))
    yield from refused
    known = [size for size in sizes if size is not None]
    if target.max_length is not None and not refused and len(known) == len(sizes):
        yield from _length(row, known, target, target.max_length)
    if train and not any(turn.assistant and turn.assistant.strip() for turn in row.conversations):
        yield Problem(NOTHING_TO_TRAIN_ON, "the row has no answer", "/conversations")


TOO_LONG = Rule(
    code="CK401",
    slug="too-long",
    severity=Severity.ERROR,
    summary="rows with more tokens than `--max_length`",
    why="Trainers truncate such a row, which loses the answer or a part of an image, or skip it silently.",
    fix="Raise `--max_length`, use fewer or smaller images, use fewer tiles per image, or shorten the text.",
)
MAYBE_TOO_LONG = Rule(
    code="CK402",
    slug="maybe-too-long",
    severity=Severity.WARNING,
    summary="rows that may have more tokens than `--max_length`, by an estimate",
    why="Without the model's tokenizer, text length is only known within bounds, and the upper bound exceeds the "
    "limit.",
    fix="Pass the model's tokenizer.json with `--tokenizer` for an exact count.",
)


def _length(row: Row, sizes: Sequence[ImageSize], target: TargetModel, max_length: int) -> Iterator[Problem]:
    count = target.count(row, sizes)
    if count.low > max_length:
        number = f"{count.low:,}" if count.exact else f"at least {count.low:,} (estimated)"
        yield Problem(TOO_LONG, f"the row has {number} tokens, the limit is {max_length:,}")
    elif count.high > max_length:
        message = f"the row has {count.low:,} to {count.high:,} tokens (estimated), the limit is {max_length:,}"
        yield Problem(MAYBE_TOO_LONG, message)


CONTROL_TOKEN = Rule(
    code="CK403",
    slug="control-token",
    severity=Severity.ERROR,
    summary="text that contains a control token of the model",
    why="The tokenizer turns it into the control token. Turns end early, images are miscounted, and untrusted text "
    "can pose as the system prompt.",
    fix="Remove it from the text. The chat template adds the control tokens; images are marked with `<image>`.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"What is 1?","assistant":"A '
    'cat."}],"system":"Be kind."}',
)


def _control_tokens(row: Row, target: TargetModel) -> Iterator[Problem]:
    for pointer, text in _texts(row):
        if found := target.profile.control_tokens.search(text):
            yield Problem(CONTROL_TOKEN, f"the text contains {found[0]}, a control token of the model", pointer)


def _texts(row: Row) -> Iterator[tuple[str, str]]:
    if row.system is not None:
        yield "/system", row.system
    for index, turn in enumerate(row.conversations):
        # The schema has checked that each marker stands for an image.
        yield f"/conversations/{index}/user", turn.user.replace(IMAGE_MARKER, " ")
        if turn.assistant is not None:
            yield f"/conversations/{index}/assistant", turn.assistant


REFUSED_SHAPE = Rule(
    code="CK404",
    slug="refused-shape",
    severity=Severity.ERROR,
    summary="images of a shape that the model's image processor rejects",
    why="Training stops at this image.",
    fix="Crop or pad the image to a less extreme aspect ratio, or remove the row.",
)


def _refused_shapes(row: Row, sizes: Sequence[ImageSize | None], target: TargetModel) -> Iterator[Problem]:
    pointers = (
        f"/conversations/{turn}/images/{image}"
        for turn, content in enumerate(row.conversations)
        for image in range(len(content.images))
    )
    for pointer, size in zip(pointers, sizes, strict=True):
        try:
            if size is not None:
                target.profile.image_tokens(size, len(sizes))
        except UnsupportedShape as refusal:
            yield Problem(REFUSED_SHAPE, str(refusal), pointer)


NOTHING_TO_TRAIN_ON = Rule(
    code="CK405",
    slug="nothing-to-train-on",
    severity=Severity.ERROR,
    summary="rows of the training split without an answer",
    why="Only answers are trained on. The row costs as much as any other, but its loss is zero or NaN.",
    fix="Add the answer, or move the row to an unlabelled split.",
    instead='{"id":"1","source":"pets","conversations":[{"images":[],"user":"What is it?","assistant":"A cat."}]}',
)
RULES = (TOO_LONG, MAYBE_TOO_LONG, CONTROL_TOKEN, REFUSED_SHAPE, NOTHING_TO_TRAIN_ON)
