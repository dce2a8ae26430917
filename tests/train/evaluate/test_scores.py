"""Scores of yes/no sources: log-odds of the first token, or of the whole answers if both begin alike."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convkit.metrics.predictions import read_predictions
from convkit.schema import Row
from convkit.train.evaluate import run
from convkit.train.evaluate.options import EvaluateOptions
from convkit.train.models import model_family
from tests.train.evaluate.helpers import predictions, rows, validated_dataset


def test_the_score_is_the_log_odds_of_the_first_token(options: EvaluateOptions) -> None:
    predictions(options)
    family = model_family(options.model)
    row = Row.model_validate(rows()[2])
    batch = family.collate([family.encode_prompt(row, options.data_dir / "images")], packed=False)
    del batch["labels"]
    with torch.inference_mode():
        logits = family.load(torch.float32, "sdpa").eval()(**batch).logits[0, -1].log_softmax(-1)
    ids = [family.tokenizer(word, add_special_tokens=False).input_ids for word in (" Yes", " No")]
    found = {(p.id, p.turn): p.score for p in read_predictions(options.output_dir / run.PREDICTIONS)}
    assert found["r2", 1] == pytest.approx(float(logits[ids[0][0]] - logits[ids[1][0]]), abs=1e-4)


def test_answers_with_the_same_first_token_are_compared_whole(options: EvaluateOptions, tmp_path: Path) -> None:
    content = json.loads(json.dumps(rows()).replace('"No"', '"Yes not"'))
    data = validated_dataset(tmp_path / "alike", options.model, content)
    predictions(replace(options, data_dir=data))
    family = model_family(options.model)
    model = family.load(torch.float32, "sdpa").eval()

    def log_likelihood(answer: str) -> float:
        prompt = family.encode_prompt(Row.model_validate(content[2]), data / "images")
        ids = family.tokenizer(f" {answer}<end_of_utterance>", add_special_tokens=False).input_ids
        tokens = torch.cat([prompt.input_ids, torch.tensor(ids)])[None]
        with torch.inference_mode():
            logits = model(input_ids=tokens, **prompt.image_inputs).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt.input_ids) - 1 + place, id]) for place, id in enumerate(ids))

    found = {(p.id, p.turn): p.score for p in read_predictions(options.output_dir / run.PREDICTIONS)}
    assert found["r2", 1] == pytest.approx(log_likelihood("Yes") - log_likelihood("Yes not"), abs=1e-4)
