"""Test that `convkit inspect` shows exactly the model input."""

import base64
import io
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from convkit.cli import main
from convkit.errors import DatasetError
from convkit.schema import Row
from convkit.train.inspect import views
from convkit.train.inspect.tokens import _text, inspect_row
from convkit.train.models import model_family, tiny
from tests.train.helpers import runs

HOSTILE = "Is <b>it</b>? \x1b[31m <|im_end|>"
ROWS: list[dict[str, Any]] = [
    {
        "id": "r1",
        "source": "pets",
        "conversations": [{"images": ["1.png"], "user": HOSTILE, "assistant": "True."}],
    },
    {"id": "r2", "source": "pets", "conversations": [{"images": [], "user": "Why?"}]},
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = runs.write_dataset(tmp_path_factory.mktemp("data") / "pets", ROWS, validated=False)
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 30:] = (250, 120, 20)
    PIL.Image.fromarray(picture).save(directory / "images/1.png")
    return directory


@pytest.fixture(scope="module", params=tiny.BUILDERS)
def family(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], Path]) -> Any:
    return model_family(tiny_checkpoint(request.param), 1 if request.param == "phi3_v" else None)


def test_tokens_equal_those_of_the_encoded_sample(family: Any, dataset: Path) -> None:
    view = inspect_row(dataset, "r1", family)
    sample = family.encode(Row.model_validate(ROWS[0]), dataset / "images")
    assert [token.id for token in view.tokens] == sample.input_ids.tolist()
    assert [token.position for token in view.tokens] == list(range(len(sample)))
    supervised = "".join(token.text for token in view.tokens if token.kind == "supervised")
    assert supervised.strip().replace(" ", "").startswith("True.")
    assert view.count("supervised") == int((sample.labels != -100).sum())
    assert view.count("image") > 0


def test_one_tile_shows_the_whole_image(family: Any, dataset: Path) -> None:
    """The tile is black on the left and orange on the right; it may be stretched."""
    tiles = inspect_row(dataset, "r1", family).tiles
    assert all(tile.shape[0] == 3 for tile in tiles)
    assert any(
        _is(tile[:, tile.shape[1] // 2, tile.shape[2] // 4], (0, 0, 0))
        and _is(tile[:, tile.shape[1] // 2, -tile.shape[2] // 4], (250, 120, 20))
        for tile in tiles
    )


def _is(seen: Any, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(seen.float().numpy() - np.array(colour)).max() < 12)


def test_tokens_of_a_split_letter_are_shown_as_bytes(family: Any, dataset: Path) -> None:
    ids = family.tokenizer("\u6f22", add_special_tokens=False).input_ids
    text = "".join(_text(family, id) for id in ids).strip()
    assert text in ("\\xe6\\xbc\\xa2", "<0xE6><0xBC><0xA2>")


def test_a_row_without_its_last_answer_is_shown_as_a_prompt(family: Any, dataset: Path) -> None:
    view = inspect_row(dataset, "r2", family)
    assert not view.answered
    assert view.count("supervised") == 0
    assert "its generation prompt" in " ".join(views.summary(view))


def test_the_page_has_all_tokens_and_tiles_and_escapes_markup(family: Any, dataset: Path) -> None:
    view = inspect_row(dataset, "r1", family)
    page = views.page(view)
    spans = re.findall(r'<span class="(supervised|image|context)" title="position (\d+)(?:-(\d+))?, id (\d+)">', page)
    positions = [(kind, n, int(id)) for kind, a, b, id in spans for n in range(int(a), int(b or a) + 1)]
    assert positions == [(token.kind, token.position, token.id) for token in view.tokens]
    assert "<b>" not in page
    assert "\x1b" not in page
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(found) == len(view.tiles)
    with PIL.Image.open(io.BytesIO(base64.b64decode(found[0]))) as first:
        assert np.array_equal(np.array(first), view.tiles[0].permute(1, 2, 0).numpy())


def test_consecutive_tiles_of_one_size_share_a_line(checkpoint: Path, dataset: Path) -> None:
    view = inspect_row(dataset, "r1", model_family(checkpoint, 4))
    lines = [
        views.text(replace(view, tiles=tiles)).plain.splitlines()[-1 - odd :]
        for tiles, odd in ((view.tiles, 0), (view.tiles[:1], 0), ([*view.tiles, view.tiles[0][:, :9, :7]], 1))
    ]
    last = len(view.tiles) - 1
    every = f"tiles 0-{last}: 336 x 336 pixels"
    assert last and lines == [[every], ["tile 0: 336 x 336 pixels"], [every, f"tile {last + 1}: 7 x 9 pixels"]]


def test_control_characters_in_a_row_id_are_escaped(family: Any, dataset: Path) -> None:
    view = inspect_row(dataset, "r2", family)
    view = replace(view, row=view.row.model_copy(update={"id": "<i>\x1b[31m\u202e"}))
    assert "<h1>Row &lt;i&gt;\\x1b[31m\\u202e</h1>" in views.page(view)
    assert r"row '<i>\x1b[31m\u202e'" in views.text(view).plain


def test_an_unknown_row_id_is_reported(dataset: Path, checkpoint: Path) -> None:
    with pytest.raises(DatasetError, match=r"has no row 'r9' in train. Pass the id"):
        inspect_row(dataset, "r9", model_family(checkpoint))


def test_a_row_is_found_by_its_position(family: Any, dataset: Path) -> None:
    for index, row in enumerate(ROWS):
        assert inspect_row(dataset, index, family).row.id == row["id"]
        assert inspect_row(dataset, index, family, "train").location == f"{dataset}/pets_train.jsonl:{index + 1}"
    with pytest.raises(DatasetError, match=r"has no row 2 in train. Pass an --index below 2\.$"):
        inspect_row(dataset, 2, family)


def test_the_command_shows_the_first_row_unless_another_is_chosen(
    dataset: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (dataset, "--model", checkpoint, "--num_crops", "1")
    for more, line in {(): 1, ("--index", "0"): 1, ("--index", "1"): 2, ("--row", "r2"): 2}.items():
        assert _run(monkeypatch, *options, *more) == 0
        assert f"pets_train.jsonl:{line}: 1 turn" in capsys.readouterr().out
    assert _run(monkeypatch, *options, "--row", "r1", "--index", "0") == 2
    assert "--row and --index both choose the row. Leave one out." in capsys.readouterr().err
    assert _run(monkeypatch, *options, "--index", "5") == 2
    assert "Pass an --index below 2." in capsys.readouterr().err


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["convkit", "inspect", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_inspect_command_prints_text_and_writes_a_page(
    dataset: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (dataset, "--model", checkpoint, "--row", "r1", "--num_crops", "1")
    assert _run(monkeypatch, *options) == 0
    output = capsys.readouterr().out
    assert "pets_train.jsonl:1: 1 turn, 1 image in 1 tile" in output
    assert re.search(r"\d+-\d+ +supervised +.*T", output)
    assert "<|image|> x313" in output
    assert "\x1b" not in output
    assert _run(monkeypatch, *options, "--out", tmp_path / "row.png") == 2
    assert "does not end in .html" in capsys.readouterr().err
    assert _run(monkeypatch, *options, "--out", tmp_path / "new/row.html") == 0
    assert (tmp_path / "new/row.html").read_text().startswith("<!doctype html>")
    assert _run(monkeypatch, *options[:-3], "r9") == 2
    assert "has no row 'r9'" in capsys.readouterr().err
    assert _run(monkeypatch, dataset, "--model", "qwen2.5-vl", "--row", "r1") == 2
    assert "qwen2.5-vl is a token profile" in capsys.readouterr().err
    assert _run(monkeypatch, dataset, "--model", "owner/name", "--row", "r1") == 2
    assert "hf download owner/name --local-dir name; then pass --model name." in capsys.readouterr().err
