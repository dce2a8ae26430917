"""Options of a training run: the recipe's options under the recipe's names, and a few more.

The command line is made from this class, so importing it must stay cheap.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from convkit.errors import ConvkitError, MissingExtra
from convkit.train.recipes import hyper_parameters

ALIASES = {"model": "model_name_or_path", "weight_decay": "wd"}
"""The recipe's spelling of options that have another name here."""
SECTIONS = {
    "data_dir": "Data, model and output",
    "use_lora": "Fine-tuning method",
    "bf16": "Precision, memory and speed",
    "deepspeed": "Distributed training",
    "num_crops": "Batches",
    "num_train_epochs": "Optimization",
    "eval_split": "Evaluation during training",
    "save_steps": "Checkpoints",
    "dataloader_num_workers": "Data loading and logging",
}
"""Titles of the help's sections, by the first option of each."""
Method = Literal["full", "frozen vision", "LoRA", "QLoRA"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """The options of a training run; the first annotation of a field is its help text."""

    data_dir: Annotated[Path, "Dataset directory that passed `convkit validate` for this model."]
    model: Annotated[Path, "Directory of the base model's checkpoint."]
    output_dir: Annotated[Path, "Run directory: config, metrics, checkpoints and, at the end, final/."]
    split: Annotated[str, "Split to train on."] = "train"

    use_lora: Annotated[bool, "LoRA: train low-rank adapters instead of all weights."] = False
    use_qlora: Annotated[bool, "QLoRA: train LoRA adapters on a model in 4 bits (NF4). Implies --use_lora."] = False
    freeze_vision_model: Annotated[bool, "Freeze the vision tower and the projector."] = False
    full_vision_model: Annotated[
        bool, "With LoRA: fully fine-tune the vision tower and the projector, as a new vision tower needs it."
    ] = False
    lora_rank: Annotated[int, "LoRA rank.", Ge(1)] = 64
    lora_alpha_ratio: Annotated[float, "LoRA alpha divided by the rank.", Gt(0)] = 2.0
    lora_dropout: Annotated[float, "LoRA dropout.", Ge(0), Lt(1)] = 0.0

    bf16: Annotated[
        bool, "Mixed precision: compute in bfloat16. Trained weights stay in float32 unless --optim adamw_bf16."
    ] = False
    fp16: Annotated[bool, "Mixed precision: compute in float16, for GPUs without bfloat16."] = False
    fp8: Annotated[bool, "With LoRA and --bf16: float8 matrix products with the language model's frozen weights."] = (
        False
    )
    use_flash_attention: Annotated[bool, "Use the flash-attn package. Implies --bf16."] = False
    gradient_checkpointing: Annotated[
        Literal["auto", "all", "none"],
        "Activation (gradient) checkpointing: recompute activations in the backward pass, in all layers, in none, or "
        "in as few as fit into GPU memory.",
    ] = "auto"
    memory_limit: Annotated[
        float | None, "GiB of GPU memory that --gradient_checkpointing auto may use. Default: most of it.", Gt(0)
    ] = None
    compile: Annotated[bool, "On GPUs: torch.compile the layers and the optimizer where it is known to help."] = True
    optim: Annotated[
        Literal["adamw", "adamw_bf16"],
        "Optimizer. adamw_bf16 keeps gradients and moments in bfloat16: 10 bytes per weight instead of 16.",
    ] = "adamw"

    deepspeed: Annotated[
        Literal["zero2", "zero3"] | None,
        "DeepSpeed ZeRO for full fine-tuning: shard gradients and optimizer states; zero3 shards weights too.",
    ] = None
    fsdp: Annotated[bool, "FSDP2 for full fine-tuning: shard weights, gradients and optimizer states."] = False

    num_crops: Annotated[int | None, "Maximum image crops (tiles) per image. Default: the checkpoint's.", Ge(1)] = None
    batch_size: Annotated[int, "Global batch size in rows, over all GPUs and gradient accumulation.", Ge(1)] = 16
    batch_size_per_gpu: Annotated[
        int | None,
        "Maximum rows per micro-batch; 1 turns sequence packing off. Default: as many as --max_tokens allows.",
        Ge(1),
    ] = None
    max_tokens: Annotated[int, "Maximum tokens per micro-batch, and so per row; rows are never truncated.", Ge(1)] = (
        8192
    )
    drop_overlong: Annotated[bool, "Drop and list rows with more than --max_tokens instead of stopping."] = False
    num_train_epochs: Annotated[int, "Number of epochs.", Ge(1)] = 1
    learning_rate: Annotated[float, "Peak learning rate, after warmup; then it decays linearly to 0.", Gt(0)] = 4e-5
    warmup_steps: Annotated[int, "Steps of linear learning-rate warmup.", Ge(0)] = 50
    weight_decay: Annotated[float, "Weight decay.", Ge(0)] = 0.01
    max_grad_norm: Annotated[float, "Maximum gradient norm, for gradient clipping.", Gt(0)] = 1.0
    seed: Annotated[int, "Random seed of shuffling, LoRA initialization and dropout.", Ge(0), Lt(2**63)] = 0

    eval_split: Annotated[str | None, "Split to evaluate before the first step and after the last."] = None
    eval_steps: Annotated[int | None, "Also evaluate every so many steps.", Ge(1)] = None
    eval_limit: Annotated[int | None, "Evaluate only the first rows of the split.", Ge(1)] = None
    eval_batch_size: Annotated[int, "Questions per generation batch and GPU.", Ge(1)] = 4
    eval_max_new_tokens: Annotated[int, "Maximum tokens to generate per answer.", Ge(1)] = 64

    save_steps: Annotated[int, "Save a checkpoint every so many steps, and after the last.", Ge(1)] = 500
    save_total_limit: Annotated[int, "Number of most recent checkpoints to keep.", Ge(1)] = 2
    check_checkpoint: Annotated[bool, "Save and reload a checkpoint before the first step, as a dry run."] = True
    resume: Annotated[Literal["no", "auto"], "auto: resume from the last checkpoint in --output_dir."] = "no"
    dataloader_num_workers: Annotated[int, "Data-loading processes per GPU; 0: load in the main process.", Ge(0)] = 2
    report_to: Annotated[str, "Experiment trackers: tensorboard, wandb, or both separated by a comma."] = "none"
    logging_steps: Annotated[int, "Without a progress bar: log a line every so many steps.", Ge(1)] = 10
    deterministic: Annotated[bool, "Bitwise reproducible results on GPUs; slower."] = False
    tqdm: Annotated[bool, "Show a progress bar on a terminal."] = True

    @property
    def precision(self) -> Precision:
        """The computation type, by torch's name."""
        return "float16" if self.fp16 else "bfloat16" if self.bf16 or self.use_flash_attention else "float32"

    @property
    def method(self) -> Method:
        """The fine-tuning method, by its usual name."""
        if self.use_lora:
            return "QLoRA" if self.use_qlora else "LoRA"
        return "frozen vision" if self.freeze_vision_model else "full"

    @property
    def sharding(self) -> str:
        """The option that shards the model, such as `--fsdp`; empty without one."""
        return "--fsdp" if self.fsdp else f"--deepspeed {self.deepspeed}" if self.deepspeed else ""

    def to_json(self) -> dict[str, Any]:
        """Return all options as values for JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def resume_fingerprint(self) -> dict[str, Any]:
        """Return the options that affect the weights; a run resumes only with the same ones.

        Data, model and schedule are not included: a checkpoint has digests of them.
        """
        return {f"--{name}": value for name, value in self.to_json().items() if name not in NOT_IN_FINGERPRINT}


NOT_IN_FINGERPRINT = {
    "data_dir",
    "model",
    "output_dir",
    "eval_split",
    "eval_steps",
    "eval_limit",
    "eval_batch_size",
    "eval_max_new_tokens",
    "gradient_checkpointing",
    "memory_limit",
    "save_steps",
    "save_total_limit",
    "check_checkpoint",
    "resume",
    "dataloader_num_workers",
    "report_to",
    "logging_steps",
    "tqdm",
    "deepspeed",
    "fsdp",
}
"""Options that may change when a run resumes."""


def default_fingerprint() -> dict[str, Any]:
    """Return `Config.resume_fingerprint` of a run with default options."""
    return Config(data_dir=Path(), model=Path(), output_dir=Path()).resume_fingerprint()


def resolve(given: dict[str, Any], file: Path | None = None, recipe: str | None = None) -> Config:
    """Combine options: the command line overrides the file, which overrides the recipe, which overrides the defaults.

    Args:
        given: options of the command line, by field.
        file: a YAML file of options; it may name a recipe, as `recipe`.
        recipe: a name in `convkit.train.recipes.RECIPES`.

    Raises:
        ConvkitError: an option is unknown, missing, out of bounds or in conflict with another one, or the file cannot
            be read.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    values = {**(_read_file(file) if file else {}), **given}
    in_file = values.pop("recipe", None)
    if name := recipe or in_file:
        values = _recipe_options(str(name), values) | values
    strict = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))(Config)
    try:
        return _checked(TypeAdapter(strict).validate_python(values))
    except ValidationError as error:
        problems = [_problem(".".join(map(str, e["loc"])), e) for e in error.errors(include_url=False)]
        raise ConvkitError(f"{'; '.join(problems)}. See: convkit train --help") from None


def _problem(name: str, error: Mapping[str, Any]) -> str:
    """Describe pydantic's error about an option."""
    if error["type"] == "missing":
        return f"--{name} is missing"
    if error["type"] == "unexpected_keyword_argument":
        from difflib import get_close_matches

        near = get_close_matches(name, [field.name for field in fields(Config)], 1)
        return f"there is no --{name}" + "".join(f" (did you mean --{option}?)" for option in near)
    return f"--{name} {error['input']}: {error['msg']}"


def _checked(config: Config) -> Config:
    """Apply implied options, and raise an error for the first conflict."""
    config = replace(config, use_lora=config.use_lora or config.use_qlora)
    for conflict, message in _conflicts(config):
        if conflict:
            raise ConvkitError(message)
    return config


def _conflicts(c: Config) -> list[tuple[object, str]]:
    """Return every unsupported combination of options: whether the options have it, and the error message."""
    sharded, lora = c.sharding, "--use_qlora" if c.use_qlora else "--use_lora"
    return [
        (c.fp16 and c.bf16, "--fp16 cannot be combined with --bf16. Leave one out; bfloat16 is safer."),
        (
            c.fp16 and c.use_flash_attention,
            "--fp16 cannot be combined with --use_flash_attention, which implies --bf16. Leave one out.",
        ),
        (
            c.full_vision_model and c.freeze_vision_model,
            "--full_vision_model contradicts --freeze_vision_model. Leave one out.",
        ),
        (
            c.full_vision_model and not c.use_lora,
            "--full_vision_model is only for LoRA: without --use_lora the vision tower is fully fine-tuned anyway. "
            "Leave it out.",
        ),
        (c.fp8 and c.use_qlora, "--fp8 contradicts --use_qlora. Train with --use_lora, or leave --fp8 out."),
        (
            c.fp8 and not c.use_lora,
            "--fp8 is only for the frozen weights under LoRA. Train with --use_lora, or leave --fp8 out.",
        ),
        (c.fp8 and c.fp16, "--fp8 cannot be combined with --fp16. Use --bf16, or leave --fp8 out."),
        (c.fp8 and c.precision == "float32", "--fp8 needs bfloat16 for the rest. Add --bf16, or leave --fp8 out."),
        (
            c.optim == "adamw_bf16" and sharded,
            f"--optim adamw_bf16 cannot be combined with {sharded}. Leave {sharded} out, or use --optim adamw.",
        ),
        (
            c.optim == "adamw_bf16" and c.precision != "bfloat16",
            "--optim adamw_bf16 needs bfloat16. Add --bf16, or use --optim adamw.",
        ),
        (
            c.memory_limit and sharded,
            f"--memory_limit cannot be combined with {sharded}: it is for --gradient_checkpointing auto on one GPU or "
            "with LoRA. Leave one out.",
        ),
        (
            c.memory_limit and c.gradient_checkpointing != "auto",
            f"--memory_limit cannot be combined with --gradient_checkpointing {c.gradient_checkpointing}: only auto "
            "uses it. Leave one out.",
        ),
        (
            c.eval_split is None and (c.eval_steps or c.eval_limit),
            "--eval_steps and --eval_limit need a split to evaluate. Add --eval_split val.",
        ),
        (
            c.fsdp and c.deepspeed,
            f"--fsdp cannot be combined with --deepspeed {c.deepspeed}. Leave one of them out.",
        ),
        (
            sharded and c.use_lora,
            f"{sharded} cannot be combined with {lora}: adapters are small, and every GPU holds the whole model. Leave "
            f"{sharded} out.",
        ),
        (
            sharded and c.fp16,
            f"{sharded} cannot be combined with --fp16: the loss scale needs all gradients, and each GPU has only a "
            f"part. Use --bf16, or leave {sharded} out.",
        ),
        (
            c.eval_split is not None and (c.fsdp or c.deepspeed == "zero3"),
            f"--eval_split cannot be combined with {sharded}: with sharded weights, all GPUs would have to generate "
            "every token together. Leave it out, and run `convkit evaluate` on final/model.",
        ),
    ]


def _recipe_options(name: str, values: dict[str, Any]) -> dict[str, Any]:
    adapters = bool(values.get("use_lora") or values.get("use_qlora"))
    return hyper_parameters(name, adapters=adapters, frozen_vision=bool(values.get("freeze_vision_model")))


def _read_file(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingExtra("pyyaml", "train", "--config") from None
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConvkitError(f"--config {path} cannot be read: {error.strerror}. Check the path.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConvkitError(f"--config {path} is not YAML: {' '.join(str(error).split())}. Give a YAML file.") from None
    if not isinstance(values, dict):
        raise ConvkitError(f"{path} has no options. Write one per line, such as `batch_size: 64`.")
    if values.get("resume") is False:  # YAML reads `no` as false
        values["resume"] = "no"
    names = {alias: name for name, alias in ALIASES.items()}
    return {names.get(name := str(key).replace("-", "_"), name): value for key, value in values.items()}
