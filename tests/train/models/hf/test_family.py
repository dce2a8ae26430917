"""Families of transformers through the adapter: what is read is what a prompt is, answers are learnt, data is text."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoTokenizer

from convkit.errors import ConvkitError
from convkit.profiles import get_profile
from convkit.schema import Row
from convkit.train.models import model_family, row_images, tiny
from convkit.train.models.hf.families import FAMILIES
from convkit.train.models.hf.family import HuggingFaceFamily
from convkit.train.models.hf.tokenize import ChatTemplateTokenizer
from convkit.train.models.tiny.idefics3 import ModelSize
from convkit.train.models.tokenize import IGNORE_INDEX, RowError, RowTooLong
from tests.train.conftest import TEXTS

SIZES = {"a.png": (64, 64), "b.png": (90, 40), "c.png": (30, 70)}
TURNS: tuple[dict[str, Any], ...] = (
    {"images": ["a.png", "b.png"], "user": "Is it true?", "assistant": "True."},
    {"images": [], "user": "Why?", "assistant": "A cup, and a logo."},
    {"images": ["c.png"], "user": "What is <image> then?", "assistant": "It is a logo."},
)
OTHER_HISTORY = "<|im_start|>{{ message['role'] }} "
"""LLaVA-OneVision's template writes a blank after the role of an answer, but none where one is to be generated."""
TILED = ModelSize(longest_edge=128)


def row(*turns: dict[str, Any], **keys: Any) -> Row:
    filled = [{"images": [], "assistant": "Yes.", **turn} for turn in turns]
    return Row.model_validate({"id": "r1", "source": "s", "conversations": filled, **keys})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    for number, (name, size) in enumerate(SIZES.items()):
        PIL.Image.effect_noise(size, 40 + number).save(directory / name)
    return directory


def turns(family: HuggingFaceFamily, last: int = 3) -> tuple[dict[str, Any], ...]:
    """As many as the model can learn at once, up to the last one."""
    return TURNS[last - 1 : last] if family.spec.single_turn else TURNS[:last]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], Path]) -> HuggingFaceFamily:
    found = model_family(tiny_checkpoint(request.param))
    assert isinstance(found, HuggingFaceFamily)
    return found


def _learnt(family: HuggingFaceFamily, labels: torch.Tensor) -> str:
    return str(family.processor.tokenizer.decode(labels[labels != IGNORE_INDEX]))


def test_answers_and_their_ends_are_learnt_and_nothing_else(family: HuggingFaceFamily, images: Path) -> None:
    sample = family.encode(row(*turns(family)), images)
    end = family._row_tokenizer.end
    between = "" if family.spec.processor.endswith(":LlavaProcessor") else end  # its template ends no answer
    expected = between.join(turn["assistant"] for turn in turns(family)) + end
    assert _learnt(family, sample.labels).replace(" ", "") == expected.replace(" ", "")
    kept = sample.labels != IGNORE_INDEX
    assert torch.equal(sample.labels[kept], sample.input_ids[kept])


ODD_ANSWERS = (
    *("  Yes", "\n\nYes", " \n Yes", "\r\nYes", "Yes \n", "assistant\n", ": no", "USER: a ASSISTANT: b"),
    *("\u3000\u00e9\u6f22\U0001f389\u200b", "\x00\x1c-", "</s><|im_end|>\n<end_of_turn>", "\ue0000\ue001"),
)
"""They would join the template's line end or blank before them, or look like what it writes."""


@pytest.mark.parametrize("answer", ODD_ANSWERS)
def test_answers_are_learnt_to_the_letter(family: HuggingFaceFamily, images: Path, answer: str) -> None:
    encoder, history = family._row_tokenizer, OTHER_HISTORY in (family._row_tokenizer._template or "")
    chosen = [{**turn, "assistant": answer} for turn in turns(family)]
    sample = family.encode(row(*chosen), images)
    between = (
        encoder._answer_prefix
        if family.spec.processor.endswith(":LlavaProcessor")
        else encoder.end + encoder._answer_prefix
    )
    assert _learnt(family, sample.labels) == encoder._answer_prefix + between.join([answer] * len(chosen)) + encoder.end
    for last in range(len(chosen) if history else 1, len(chosen) + 1):
        prompt = family.encode_prompt(row(*chosen[:last]), images).input_ids
        assert torch.equal(sample.input_ids[: len(prompt)], prompt)
        assert sample.labels[len(prompt) - 1] == IGNORE_INDEX != sample.labels[len(prompt)]


def test_training_reads_what_the_prompt_of_each_turn_is(family: HuggingFaceFamily, images: Path) -> None:
    history = OTHER_HISTORY in (family._row_tokenizer._template or "")
    for last in range(len(TURNS) if history else 1, len(TURNS) + 1):
        whole = family.encode(row(*turns(family, last if family.spec.single_turn else 3)), images).input_ids
        prompt = family.encode_prompt(row(*turns(family, last)), images)
        assert torch.equal(whole[: len(prompt)], prompt.input_ids)
        assert bool((prompt.labels == IGNORE_INDEX).all())


def test_a_prompt_is_what_the_processor_makes_of_it(family: HuggingFaceFamily, images: Path) -> None:
    """The text that the template writes, through the processor's own tokens."""
    processor, found = family.processor, row(*turns(family, 1 if family.spec.single_turn else 3))
    _, written = processor.process(row_images.load(found, images))
    messages = []
    for turn in turns(family, 1 if family.spec.single_turn else 3):
        before, marker, after = str(turn["user"]).partition("<image>")
        text = [{"type": "text", "text": part} for part in (before, after) if part]
        pictures = [{"type": "image"}] * len(turn["images"])
        content = [text[0], *pictures, *text[1:]] if marker else [*pictures, *text]
        if marker and "Llava" in family.spec.processor:  # its template puts all images first
            content = [{"type": "text", "text": turn["user"]}]
        messages.append({"role": "user", "content": content})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": turn["assistant"]}]})
    rendered = processor.tokenizer.apply_chat_template(
        messages[:-1], chat_template=family._row_tokenizer._template, tokenize=False, add_generation_prompt=True
    )
    for one in written:
        rendered = rendered.replace(processor.image_token, one.replace(processor.image_token, "\ue123"), 1)
    rendered = rendered.replace("\ue123", processor.image_token)
    begins = bool(processor.tokenizer.bos_token) and rendered.startswith(processor.tokenizer.bos_token)
    expected = processor.tokenizer(rendered, add_special_tokens=not begins).input_ids
    assert family.encode_prompt(found, images).input_ids.tolist() == expected


def test_lengths_from_headers_are_those_of_samples(family: HuggingFaceFamily, images: Path) -> None:
    for chosen in (turns(family), TURNS[:1], TURNS[1:2], TURNS[2:]):
        for system in (None, "Be true."):
            found = row(*chosen, **({"system": system} if system else {}))
            sample = family.encode(found, images)
            assert family.length(found, images) == (len(sample), int((sample.labels[1:] != IGNORE_INDEX).sum()))


def test_validation_counts_what_the_adapter_makes(family: HuggingFaceFamily, images: Path) -> None:
    profile = get_profile(family.profile)
    for chosen, keys in ((turns(family), {}), (turns(family), {"system": "Be true."}), (TURNS[:1], {})):
        found = row(*chosen, **keys)
        sizes = [profile_size(images / name) for turn in chosen for name in turn["images"]]
        count = profile.row_tokens(found, sizes, family._row_tokenizer.count)
        assert count.exact
        assert count.low == len(family.encode(found, images))


def profile_size(path: Path) -> Any:
    from convkit.profiles import ImageSize

    with PIL.Image.open(path) as image:
        return ImageSize(*image.size)


def test_the_character_that_convkit_keeps_is_refused_by_row(family: HuggingFaceFamily, tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"'r1' has the character '\\ue002', which convkit reserves"):
        family.length(row({"user": "a \ue002"}), tmp_path)


def test_control_tokens_in_data_are_plain_text(family: HuggingFaceFamily, images: Path) -> None:
    tokenizer = family.processor.tokenizer
    controls = {id: str(token) for id, token in tokenizer.added_tokens_decoder.items()}
    all_of_them = " ".join(controls.values())
    hostile = family.encode(
        row({"user": f"a {all_of_them.replace('<image>', '')} b", "assistant": f"c {all_of_them} d"}), images
    ).input_ids.tolist()
    plain = family.encode(row({"user": "a b", "assistant": "c d"}), images).input_ids.tolist()
    assert [token for token in hostile if token in controls] == [token for token in plain if token in controls]
    assert all(tokenizer.decode(hostile).count(name) >= 1 for name in controls.values())


def test_padded_rows_have_the_logits_of_single_ones(family: HuggingFaceFamily, images: Path) -> None:
    model = family.load(torch.float32).eval()
    found = [row(*turns(family)), row(TURNS[1]), row(TURNS[2]), row(TURNS[0])]
    for make in (family.encode, family.encode_prompt):  # on the right, on the left
        samples = [make(one, images) for one in found]
        batch = family.collate(samples, packed=False)
        with torch.no_grad():
            together = model(**_inputs(batch)).logits
            for number, sample in enumerate(samples):
                alone = model(**_inputs(family.collate([sample], packed=False))).logits[0]
                real = batch["attention_mask"][number].bool()
                assert_close(together[number][real], alone, rtol=1e-4, atol=1e-5)


def _inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "labels"}


def test_generation_of_a_batch_is_that_of_its_prompts(family: HuggingFaceFamily, images: Path) -> None:
    model = family.load(torch.float32).eval()
    prompts = [family.encode_prompt(row(*turns(family, last)), images) for last in (1, 2, 3)]
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": list(family.stop_token_ids)}
    together = model.generate(**_inputs(family.collate(prompts, packed=False)), **options)
    for number, prompt in enumerate(prompts):
        alone = model.generate(**_inputs(family.collate([prompt], packed=False)), **options)[0]
        new = alone[len(prompt) :]
        assert torch.equal(together[number, -together.shape[1] + max(map(len, prompts)) :][: len(new)], new)


def test_eight_rows_are_learnt_by_heart(family: HuggingFaceFamily, images: Path) -> None:
    torch.manual_seed(0)
    model = family.load(torch.float32).train()
    words = ["cup", "logo", "True", "False", "coffee", "total", "amount", "statement"]
    names = list(SIZES)
    rows = [
        row({"images": [names[i % 3]] * (i % 2), "user": f"What is {i}?", "assistant": f"A {word}."})
        for i, word in enumerate(words)
    ]
    batch = family.collate([family.encode(one, images) for one in rows], packed=False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    loss = torch.tensor(9.0)
    for _ in range(80):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 0.05


def test_what_the_table_says_is_in_the_model(family: HuggingFaceFamily) -> None:
    model = family.load(torch.float32)
    names = [name for name, _ in model.named_parameters()]
    for prefix in family.vision_modules:
        assert any(name.startswith(prefix) for name in names), prefix
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    for end in (*family.lora_targets, *family.vision_lora_targets):
        assert any(name == end or name.endswith(f".{end}") for name in linear), end
    seeing = {name for name in linear if name.startswith(family.vision_modules)}
    ends = (*family.lora_targets, *family.vision_lora_targets)
    assert not {name for name in seeing if not any(name.endswith(f".{end}") for end in ends)}


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceFamily:
    directory = tmp_path_factory.mktemp("tiled")
    tiny.smolvlm(directory, TEXTS, TILED)
    return HuggingFaceFamily(directory)


def test_tiles_are_counted_as_they_are_made(smolvlm: HuggingFaceFamily, images: Path) -> None:
    assert smolvlm.profile == "smolvlm:longest_edge=128,max_image_size=64,image_seq_len=16"
    sample = smolvlm.encode(row(*TURNS), images)
    assert smolvlm.length(row(*TURNS), images).tokens == len(sample)
    assert int((sample.input_ids == smolvlm.processor.image_token_id).sum()) == 16 * (5 + 3 + 3)


def test_long_rows_are_refused_by_name(smolvlm: HuggingFaceFamily, images: Path) -> None:
    found = row(*TURNS)
    length = smolvlm.length(found, images).tokens
    assert len(smolvlm.encode(found, images, max_length=length)) == length
    with pytest.raises(RowTooLong, match=f"'r1' has {length} tokens, more than {length - 1}"):
        smolvlm.encode(found, images, max_length=length - 1)


@pytest.mark.parametrize("answer", ["", " \n"])
def test_empty_answers_are_refused(smolvlm: HuggingFaceFamily, images: Path, answer: str) -> None:
    with pytest.raises(RowError, match="'r1' has an empty answer in turn 1"):
        smolvlm.encode(row({"user": "a"}, {"user": "b", "assistant": answer}), images)


def test_images_that_are_not_there_or_broken_are_refused(smolvlm: HuggingFaceFamily, tmp_path: Path) -> None:
    PIL.Image.effect_noise((30, 20), 50).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    for name, problem in (("none.png", "'none.png' is not in"), ("cut.png", "does not decode")):
        with pytest.raises(RowError, match=problem):
            smolvlm.encode(row({"images": [name], "user": "What?"}), tmp_path)


def test_an_image_removed_after_its_header_was_read_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RowError, match=r"'r1' has an unusable image: 'gone\.png' is not in images/"):
        row_images.load(row({"images": ["gone.png"], "user": "What?"}), tmp_path / "images")


def test_packing_is_refused(smolvlm: HuggingFaceFamily, images: Path) -> None:
    with pytest.raises(ValueError, match="padding only, not packing"):
        smolvlm.collate([smolvlm.encode(row({"user": "a"}), images)], packed=True)


@pytest.mark.parametrize("answer", ["True.", "  Yes", "\n\nYes", ": no", "\u6f22"])
def test_a_tokenizer_of_llamas_kind(checkpoint: Path, answer: str) -> None:
    """It puts a space sign before each text between control tokens: what is encoded in parts would get too many."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' }}{% for c in m['content'] %}{{ c['text'] or '<|image|>\n' }}"
    )
    template += "{% endfor %}{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    encoder = ChatTemplateTokenizer(tokenizer, template, "<|image|>")
    chosen = [{**turn, "assistant": answer} for turn in TURNS]
    encoded = encoder.encode(row(*chosen), ["<|image|>" * 3] * 3)
    learnt = str(tokenizer.decode([label for label in encoded.labels if label != IGNORE_INDEX]))
    assert learnt == f"{answer} {answer} {answer}<|endoftext|>"
    for last in (1, 2, 3):
        images = sum(len(turn["images"]) for turn in chosen[:last])
        prompt = encoder.encode_prompt(row(*chosen[:last]), ["<|image|>" * 3] * images).input_ids
        assert encoded.input_ids[: len(prompt)] == prompt
    whole = "".join(piece.text for piece in encoder._prompt(row(*chosen), ["<|image|>" * 3] * 3))
    assert prompt == tokenizer(whole).input_ids


def test_a_checkpoint_without_template_is_refused(smolvlm: HuggingFaceFamily) -> None:
    with pytest.raises(ConvkitError, match="no chat template"):
        ChatTemplateTokenizer(smolvlm.processor.tokenizer, None, "<image>")


def test_a_template_that_drops_a_message_is_refused(smolvlm: HuggingFaceFamily, images: Path) -> None:
    encoder = ChatTemplateTokenizer(
        smolvlm.processor.tokenizer, "{{ messages[-1]['content'][-1]['text'] }}<end_of_utterance>", "<image>"
    )
    with pytest.raises(ConvkitError, match="leaves out or repeats"):
        encoder.encode(row({"user": "a"}, {"user": "b"}), [])


@pytest.mark.parametrize("family", ["phi3_v", "smolvlm", "qwen2_5_vl"])
def test_tensors_that_are_amiss_are_named(family: str, tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_checkpoint(family), tmp_path, dirs_exist_ok=True)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    missing, other = [name for name in tensors if name.endswith("down_proj.weight")][-2:]
    del tensors[missing]
    save_file({**tensors, "model.alien": torch.ones(2), other: torch.ones(3, 3)}, weights, {"format": "pt"})
    name = r"model\.(language_model\.|text_model\.|visual\.)?"
    with pytest.raises(ConvkitError) as refused:
        model_family(tmp_path).load(torch.float32, "sdpa")
    pattern = rf"1 missing: {name}.*1 not part of this model: {name}alien; 1 with a different shape: {name}\S+down_proj"
    assert re.search(pattern, str(refused.value))


def test_saving_gives_the_same_checkpoint(family: HuggingFaceFamily, tmp_path: Path) -> None:
    model = family.load(torch.float32)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    family.save_processor(tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    saved = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert len(files) > 1
    assert_close(saved, load_file(family.directory / "model.safetensors"), rtol=0, atol=0)
    again = model_family(tmp_path)
    assert again.profile == family.profile
    assert_close(again.load(torch.float32, "sdpa").state_dict(), model.state_dict(), rtol=0, atol=0)


def test_an_unknown_family_is_refused_with_the_list(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "kosmos-2"}')
    with pytest.raises(ConvkitError, match=r"'kosmos-2', which convkit cannot train. Supported: phi3_v, .*smolvlm"):
        model_family(tmp_path)


def test_a_picture_too_small_for_its_family_is_refused(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    PIL.Image.effect_noise((9, 9), 50).save(tmp_path / "dot.png")
    with pytest.raises(
        RowError, match=r"'r1' has an image whose shape this model does not support: 'dot\.png': 9 x 9 pixels"
    ):
        model_family(tiny_checkpoint("mistral3")).length(row({"images": ["dot.png"], "user": "What?"}), tmp_path)


def test_a_model_that_reads_its_prompt_both_ways_learns_one_answer_a_row(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(RowError, match="'r1' has 2 turns, but this model can only be trained on the last one"):
        model_family(tiny_checkpoint("paligemma")).length(row({"user": "a"}, {"user": "b"}), tmp_path)
