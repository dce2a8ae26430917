"""`Dataset.to_torch`: the Trainer of transformers and the SFTTrainer of TRL train on what convkit trains on."""

import math
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import convkit
from tests.api.conftest import MakeChats

torch = pytest.importorskip("torch", reason="needs the extra train: pip install 'convkit-vlm[train]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of transformers and TRL
FAMILIES = ["smolvlm", "qwen2_vl", "phi3_v"]


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def expected(dataset: convkit.Dataset, model: Path) -> list[dict[str, Any]]:
    """Return the rows of the training split as convkit encodes them."""
    from convkit.train.models import model_family

    family = model_family(model)
    samples = [family.encode(row, dataset.images) for row in dataset["train"]]
    return [{"input_ids": s.input_ids, "labels": s.labels, **s.image_inputs} for s in samples]


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], Path]) -> Path:
    return tiny_checkpoint(request.param)


@pytest.fixture
def dataset(model: Path, make_chats: MakeChats) -> convkit.Dataset:
    return make_chats(model.name)


def test_items_are_the_rows_as_convkit_encodes_them(dataset: convkit.Dataset, model: Path) -> None:
    rows, encoded = dataset.to_torch(model), expected(dataset, model)
    assert len(rows) == len(encoded) == 4
    assert all(same(rows[number], encoded[number]) for number in range(4))
    assert same(rows[-1], encoded[-1])
    assert list(rows.lengths) == [len(row["input_ids"]) for row in encoded]
    with pytest.raises(IndexError):
        rows[4]


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_read_the_same_batches(dataset: convkit.Dataset, model: Path, method: str) -> None:
    rows = dataset.to_torch(model)
    loader = torch.utils.data.DataLoader(
        rows, batch_size=3, num_workers=2, collate_fn=rows.collate, multiprocessing_context=method
    )
    batches = [rows.collate([rows[0], rows[1], rows[2]]), rows.collate([rows[3]])]
    assert [same(*pair) for pair in zip(loader, batches, strict=True)] == [True, True]
    assert multiprocessing.active_children() == []


def test_a_batch_is_that_of_the_family(dataset: convkit.Dataset, model: Path) -> None:
    from convkit.train.models import model_family

    family = model_family(model)
    samples = [family.encode(row, dataset.images) for row in dataset["train"]]
    rows = dataset.to_torch(model)
    assert same(rows.collate([rows[number] for number in range(4)]), family.collate(samples, packed=False))


def test_a_dataset_without_a_receipt_for_the_model_is_refused(
    make_chats: MakeChats, model: Path, tiny_checkpoint: Callable[[str], Path]
) -> None:
    with pytest.raises(convkit.DatasetError, match=r"has no receipt\.json"):
        make_chats().to_torch(model)
    other = make_chats(next(name for name in FAMILIES if name != model.name))
    with pytest.raises(convkit.DatasetError, match="was not validated for"):
        other.to_torch(model)
    assert len(other.to_torch(model, require_receipt=False)) == 4


def test_a_changed_dataset_is_refused(dataset: convkit.Dataset, model: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset.directory, tmp_path / "data")
    changed = convkit.load_dataset(tmp_path / "data")
    path = changed.path("train")
    path.write_text(path.read_text(encoding="utf-8").replace("A cup", "A mug"), encoding="utf-8")
    with pytest.raises(convkit.DatasetError, match=f"{path.name} has changed since it was validated"):
        changed.to_torch(model)


def test_an_error_in_a_worker_is_one_of_convkit(dataset: convkit.Dataset, model: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset.directory, tmp_path / "data")
    changed = convkit.load_dataset(tmp_path / "data")
    rows = changed.to_torch(model)
    shutil.rmtree(changed.images)
    loader = torch.utils.data.DataLoader(rows, num_workers=1, collate_fn=rows.collate)
    with pytest.raises(convkit.ConvkitError, match="'before' has an unusable image"):
        next(iter(loader))


def test_overlong_rows_are_an_error_or_dropped(dataset: convkit.Dataset, model: Path) -> None:
    lengths = sorted(dataset.to_torch(model).lengths)
    with pytest.raises(convkit.DatasetError, match="more than --max_tokens"):
        dataset.to_torch(model, max_tokens=lengths[-1] - 1)
    kept = dataset.to_torch(model, max_tokens=lengths[-1] - 1, drop_overlong=True)
    assert sorted(kept.lengths) == lengths[:-1]


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "dataloader_num_workers": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def check_training(trainer: Any, dataset: convkit.Dataset, model: Path) -> None:
    """Train two steps; the model must get the batches of convkit, and its weights must change."""
    seen: list[dict[str, Any]] = []
    trainer.model.register_forward_pre_hook(lambda module, args, inputs: seen.append(inputs), with_kwargs=True)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    result = trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert result.global_step == len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert any(not torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True))
    rows = {tuple(row["input_ids"].tolist()): row["labels"].tolist() for row in expected(dataset, model)}
    for batch in seen:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"].bool(), strict=True):
            assert rows.pop(tuple(ids[mask].tolist())) == labels[mask].tolist(), "convkit has other labels"
    assert rows == {}, "each row is trained on once in two steps of two"


def plain_trainer(rows: Any, model: Path, folder: Path, collate: Callable[..., Any]) -> Any:
    from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments

    return Trainer(
        model=AutoModelForImageTextToText.from_pretrained(model),
        args=TrainingArguments(**arguments(folder)),
        train_dataset=rows,
        data_collator=collate,
    )


def test_the_trainer_of_transformers_trains_on_it(dataset: convkit.Dataset, model: Path, tmp_path: Path) -> None:
    rows = dataset.to_torch(model)
    check_training(plain_trainer(rows, model, tmp_path, rows.collate), dataset, model)


def test_the_check_of_training_notices_a_changed_label(dataset: convkit.Dataset, model: Path, tmp_path: Path) -> None:
    rows = dataset.to_torch(model)

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = rows.collate(examples)
        batch["labels"][0, (batch["labels"][0] != -100).nonzero()[-1]] -= 1
        return batch

    with pytest.raises(AssertionError, match="convkit has other labels"):
        check_training(plain_trainer(rows, model, tmp_path, collate), dataset, model)


def test_items_as_a_hugging_face_dataset_are_the_same(dataset: convkit.Dataset, model: Path) -> None:
    rows = dataset.to_torch(model)
    wrapped = rows.as_hf()
    assert len(wrapped) == 4
    assert all(same(wrapped[number], rows[number]) for number in range(4))
    assert same(rows.collate(wrapped.__getitems__([2, 3])), rows.collate([rows[2], rows[3]]))


def test_the_sft_trainer_of_trl_trains_on_it(dataset: convkit.Dataset, model: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="needs the extra test: pip install 'convkit-vlm[test]'")
    from transformers import AutoModelForImageTextToText

    rows = dataset.to_torch(model)
    config = trl.SFTConfig(
        **arguments(tmp_path),
        max_length=None,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = trl.SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(model),
        args=config,
        train_dataset=rows.as_hf(),
        data_collator=rows.collate,
        processing_class=rows.family.tokenizer,
    )
    check_training(trainer, dataset, model)
