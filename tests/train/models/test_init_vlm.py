"""Test `convkit init-vlm`: the new VLM computes the same logits for text as its language model."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from convkit.cli import main
from convkit.errors import ConvkitError
from convkit.train.models import model_family
from convkit.train.models.init_vlm import from_language_model
from convkit.train.models.tiny.tokenizer import train_byte_level_bpe
from tests.train.conftest import TEXTS
from tests.train.helpers import runs


def language_model(folder: Path) -> LlamaForCausalLM:
    tokenizer = train_byte_level_bpe(TEXTS, 400, ["<s>", "</s>"], None, bos_token="<s>", eos_token="</s>")
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **ids, **size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


def test_logits_of_text_equal_those_of_the_language_model(tmp_path: Path) -> None:
    language = language_model(tmp_path / "language")
    from_language_model(tmp_path / "language", tmp_path / "joined", "tiny", 0)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "joined").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before, after = language(input_ids=ids).logits, model(input_ids=ids).logits
    assert torch.equal(after[..., : before.shape[-1]], before)
    found = model_family(tmp_path / "joined")
    end = found.tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    assert torch.equal(
        after[..., end], before[..., language.config.eos_token_id]
    )  # the new end token gets the logits of the old one
    assert found.profile == "smolvlm:longest_edge=64,max_image_size=64,image_seq_len=4"
    assert found.stop_token_ids == (end,)


def test_a_source_that_is_not_a_language_model_is_reported_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(20))
    for source in (tmp_path / "x.gguf", tmp_path / "nowhere"):
        with pytest.raises(ConvkitError, match=source.name):
            from_language_model(source, tmp_path / "out", "tiny", 0)
    assert not (tmp_path / "out").exists()


def test_a_model_from_scratch_has_a_tokenizer_for_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = runs.write_dataset(tmp_path / "pets", validated=False)

    def convkit(*arguments: str | Path) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["convkit", "init-vlm", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, "".join(capsys.readouterr())

    out = tmp_path / "start"
    code, output = convkit("--tokenizer_corpus", data, "--vision", "tiny", "--output_dir", out)
    assert (code, "a SmolVLM with random weights" in output) == (0, True), output
    found = model_family(out)
    text = runs.rows()[0]["conversations"][0]["user"]
    assert found.tokenizer.decode(found.tokenizer.encode(text)) == text
    assert found.tokenizer.unk_token_id not in found.tokenizer.encode(text)
    code, output = convkit("--tokenizer_corpus", data, "--output_dir", out)
    assert (code, str(out) in output) == (2, True), output
    code, output = convkit("--output_dir", tmp_path / "other")
    assert (code, "--language_model" in output) == (2, True), output
