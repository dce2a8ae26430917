"""What a training run is told: the recipe's options under its names, and a few more.

The command line is made from this class, so that nothing here may cost a start-up anything.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from convkit.errors import ConvkitError, MissingExtra
from convkit.train.recipes import hyper_parameters

ALIASES = {"model": "model_name_or_path", "weight_decay": "wd"}
"""The recipe's name of an option that is called otherwise here."""
SECTIONS = {
    "data_dir": "Data, model and run",
    "use_lora": "What is trained",
    "bf16": "How it is computed",
    "deepspeed": "Several processes",
    "num_crops": "Batches",
    "num_train_epochs": "Optimization",
    "eval_split": "Evaluating on the way",
    "save_steps": "Checkpoints",
    "dataloader_num_workers": "Reading and showing",
}
"""Of the help: the option that each begins with."""
Method = Literal["full", "frozen vision", "LoRA", "QLoRA"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A training run; a field's first annotation is its help."""

    data_dir: Annotated[Path, "A dataset directory with a receipt of `convkit validate` for this model."]
    model: Annotated[Path, "The checkpoint to start from: a directory in the official layout."]
    output_dir: Annotated[Path, "The run: its configuration, log, checkpoints, and in the end final/."]
    split: Annotated[str, "What is trained on."] = "train"

    use_lora: Annotated[bool, "Train adapters of low rank instead of the weights."] = False
    use_qlora: Annotated[bool, "Likewise, on weights in 4 bits; implies --use_lora."] = False
    freeze_vision_model: Annotated[bool, "Leave everything that makes embeddings of images as it is."] = False
    full_vision_model: Annotated[
        bool, "With adapters: train what makes embeddings of images in full, as a fresh vision tower needs it."
    ] = False
    lora_rank: Annotated[int, "Width of the adapters.", Ge(1)] = 64
    lora_alpha_ratio: Annotated[float, "The adapters' alpha is their rank times this.", Gt(0)] = 2.0
    lora_dropout: Annotated[float, "Dropout before the adapters.", Ge(0), Lt(1)] = 0.0

    bf16: Annotated[bool, "Compute in bfloat16; weights that are trained stay in float32, see --optim."] = False
    fp16: Annotated[bool, "Compute in float16, for GPUs without bfloat16; what is trained stays in float32."] = False
    fp8: Annotated[
        bool, "With adapters: products with the language model's frozen weights in float8; faster and coarser."
    ] = False
    use_flash_attention: Annotated[bool, "Attend by the package flash-attn; implies --bf16."] = False
    gradient_checkpointing: Annotated[
        Literal["auto", "all", "none"],
        "Compute activations twice instead of keeping them: in all layers, none, or as many as memory asks for.",
    ] = "auto"
    memory_limit: Annotated[float | None, "GiB of a GPU that auto fills. Default: most of it.", Gt(0)] = None
    compile: Annotated[
        bool, "On a GPU, compile layers of models known to gain by it, and the update of adamw_bf16."
    ] = True
    optim: Annotated[
        Literal["adamw", "adamw_bf16"],
        "adamw_bf16: weights as exact as in adamw, gradients and moments in bfloat16; 10 bytes a weight, not 16.",
    ] = "adamw"

    deepspeed: Annotated[
        Literal["zero2", "zero3"] | None,
        "Share out gradients and moments by DeepSpeed, with zero3 weights too; for full training on several GPUs.",
    ] = None
    fsdp: Annotated[bool, "Share out weights, gradients and moments by FSDP2; likewise."] = False

    num_crops: Annotated[int | None, "At most so many tiles an image. Default: the checkpoint's number.", Ge(1)] = None
    batch_size: Annotated[int, "Rows of a global batch, on all processes together.", Ge(1)] = 16
    batch_size_per_gpu: Annotated[
        int | None, "At most so many rows at once; 1 packs nothing. Default: as many as --max_tokens lets in.", Ge(1)
    ] = None
    max_tokens: Annotated[int, "At most so many tokens at once, and so in a row.", Ge(1)] = 8192
    drop_overlong: Annotated[bool, "Leave out rows of more tokens, counted and named, instead of refusing them."] = (
        False
    )
    num_train_epochs: Annotated[int, "Times that each row is trained on.", Ge(1)] = 1
    learning_rate: Annotated[float, "The highest, after warming up; then it falls to 0.", Gt(0)] = 4e-5
    warmup_steps: Annotated[int, "Steps in which the learning rate rises.", Ge(0)] = 50
    weight_decay: Annotated[float, "Weight decay.", Ge(0)] = 0.01
    max_grad_norm: Annotated[float, "Gradients are scaled down to this norm.", Gt(0)] = 1.0
    seed: Annotated[int, "Of the order of rows, of new adapters and of dropout.", Ge(0), Lt(2**63)] = 0

    eval_split: Annotated[str | None, "Evaluate on this split before the first step and after the last."] = None
    eval_steps: Annotated[int | None, "Likewise after every so many steps.", Ge(1)] = None
    eval_limit: Annotated[int | None, "The first rows of that split only.", Ge(1)] = None
    eval_batch_size: Annotated[int, "Questions of an evaluation answered at once, by each process.", Ge(1)] = 4
    eval_max_new_tokens: Annotated[int, "Longer answers are cut off.", Ge(1)] = 64

    save_steps: Annotated[int, "Steps between checkpoints; one is also written at the end.", Ge(1)] = 500
    save_total_limit: Annotated[int, "Checkpoints that are kept, the last ones.", Ge(1)] = 2
    check_checkpoint: Annotated[bool, "Save and reload one before the first step, and see whether all fit."] = True
    resume: Annotated[Literal["no", "auto"], "auto: go on from the last checkpoint in --output_dir."] = "no"
    dataloader_num_workers: Annotated[int, "Processes that read images; 0: none.", Ge(0)] = 2
    report_to: Annotated[str, "Where else curves go: tensorboard, wandb, or both with a comma."] = "none"
    deterministic: Annotated[bool, "On GPUs too, the same bits each time; slower."] = False
    tqdm: Annotated[bool, "Show a progress bar."] = True

    @property
    def precision(self) -> Precision:
        """The type that is computed in, by torch's name."""
        return "float16" if self.fp16 else "bfloat16" if self.bf16 or self.use_flash_attention else "float32"

    @property
    def method(self) -> Method:
        """What is trained, in a word."""
        if self.use_lora:
            return "QLoRA" if self.use_qlora else "LoRA"
        return "frozen vision" if self.freeze_vision_model else "full"

    @property
    def sharding(self) -> str:
        """How several processes share the model, as an option says it; empty where each has all of it."""
        return "--fsdp" if self.fsdp else f"--deepspeed {self.deepspeed}" if self.deepspeed else ""

    def recorded(self) -> dict[str, Any]:
        """All options as JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    def decisive(self) -> dict[str, Any]:
        """The options that have a bearing on the weights; data, model and schedule are compared by their digests."""
        return {f"--{name}": value for name, value in self.recorded().items() if name not in _INCONSEQUENTIAL}


_INCONSEQUENTIAL = {
    "data_dir",
    "model",
    "output_dir",
    "eval_split",
    "eval_steps",
    "eval_limit",
    "eval_batch_size",
    "eval_max_new_tokens",
    "checkpointing",
    "memory_limit",
    "save_steps",
    "save_total_limit",
    "check_checkpoint",
    "resume",
    "dataloader_num_workers",
    "report_to",
    "tqdm",
    "deepspeed",
    "fsdp",
}


def defaults() -> dict[str, Any]:
    """What `Config.decisive` says of a run without options; paths, which have no default, are not in it."""
    return Config(data_dir=Path(), model=Path(), output_dir=Path()).decisive()


def resolve(given: dict[str, Any], file: Path | None = None, recipe: str | None = None) -> Config:
    """The configuration of what was given on the command line, over a file, over a recipe, over the defaults.

    Args:
        recipe: a name of `convkit.train.recipes.RECIPES`; the file may name one too, as `recipe`.

    Raises:
        ConvkitError: an option is unknown, missing or out of its bounds; or the file cannot be read.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    values = {**(_from_file(file) if file else {}), **given}
    in_file = values.pop("recipe", None)
    if name := recipe or in_file:
        values = _recipe(str(name), values) | values
    strict = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))(Config)
    try:
        return _consistent(TypeAdapter(strict).validate_python(values))
    except ValidationError as error:
        problems = [_problem(".".join(map(str, e["loc"])), e) for e in error.errors(include_url=False)]
        raise ConvkitError(f"{'; '.join(problems)}. See: convkit train --help") from None


def _problem(name: str, error: Mapping[str, Any]) -> str:
    """What is wrong with an option, as pydantic has it, in words."""
    if error["type"] == "missing":
        return f"--{name} is missing"
    if error["type"] == "unexpected_keyword_argument":
        from difflib import get_close_matches

        near = get_close_matches(name, [field.name for field in fields(Config)], 1)
        return f"there is no --{name}" + "".join(f" (did you mean --{option}?)" for option in near)
    return f"--{name} {error['input']}: {error['msg']}"


def _consistent(config: Config) -> Config:
    if config.fp16 and (config.bf16 or config.use_flash_attention):
        other = "--bf16" if config.bf16 else "--use_flash_attention, which implies --bf16"
        raise ConvkitError(f"--fp16 cannot be had with {other}. Leave one of them out; bfloat16 is the safer one.")
    config = replace(config, use_lora=config.use_lora or config.use_qlora)
    if config.full_vision_model and (config.freeze_vision_model or not config.use_lora):
        other = "contradicts --freeze_vision_model" if config.freeze_vision_model else "is the case without --use_lora"
        raise ConvkitError(f"--full_vision_model {other}. Leave it out.")
    if config.fp8 and config.method != "LoRA":
        other = "contradicts --use_qlora" if config.use_qlora else "is of frozen weights under adapters"
        raise ConvkitError(f"--fp8 {other}. Train with --use_lora, or leave --fp8 out.")
    if config.fp8 and config.precision != "bfloat16":
        other = "cannot be had with --fp16" if config.fp16 else "computes in bfloat16 beside float8"
        raise ConvkitError(f"--fp8 {other}. Give --bf16, or leave --fp8 out.")
    if config.optim == "adamw_bf16" and (config.precision != "bfloat16" or config.sharding):
        other = config.sharding or "another type than bfloat16"
        raise ConvkitError(
            f"--optim adamw_bf16 does not go with {other}. Add --bf16 and leave out --deepspeed and --fsdp, or take "
            "--optim adamw."
        )
    if config.memory_limit and (config.gradient_checkpointing != "auto" or config.sharding):
        other = config.sharding or f"--gradient_checkpointing {config.gradient_checkpointing}"
        raise ConvkitError(
            f"--memory_limit does not go with {other}: it is what --gradient_checkpointing auto fills, on one GPU or "
            "with adapters. Leave one of them out."
        )
    if config.eval_split is None and (config.eval_steps or config.eval_limit):
        raise ConvkitError("--eval_steps and --eval_limit need to know what is evaluated on. Add --eval_split val.")
    if config.fsdp and config.deepspeed:
        raise ConvkitError(f"--fsdp cannot be had with --deepspeed {config.deepspeed}. Leave one of them out.")
    if config.sharding:
        _require_shareable(config)
    return config


def _require_shareable(config: Config) -> None:
    """Refuse what does not go with a model that several processes share."""
    if config.use_lora or config.use_qlora:
        option = "--use_qlora" if config.use_qlora else "--use_lora"
        raise ConvkitError(
            f"{config.sharding} does not go with {option}: adapters are small, and every process has the whole "
            f"model. Leave {config.sharding} out."
        )
    if config.fp16:
        raise ConvkitError(
            f"{config.sharding} does not go with --fp16: all gradients must fit or none, and each process has a part "
            f"of them. Compute in bfloat16 with --bf16, or leave {config.sharding} out."
        )
    if config.eval_split is not None and (config.fsdp or config.deepspeed == "zero3"):
        raise ConvkitError(
            f"--eval_split does not go with {config.sharding}: answers are of many lengths, and a model in pieces must "
            "go through each token on all processes. Leave it out, and run `convkit evaluate` on final/model."
        )


def _recipe(name: str, values: dict[str, Any]) -> dict[str, Any]:
    adapters = bool(values.get("use_lora") or values.get("use_qlora"))
    return hyper_parameters(name, adapters=adapters, frozen_vision=bool(values.get("freeze_vision_model")))


def _from_file(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingExtra("pyyaml", "train", "--config") from None
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConvkitError(f"{path} cannot be read: {' '.join(str(error).split())}. Give a YAML file.") from None
    if not isinstance(values, dict):
        raise ConvkitError(f"{path} holds no options. Write one a line, such as `batch_size: 64`.")
    if values.get("resume") is False:  # what YAML makes of `no`
        values["resume"] = "no"
    ours = {theirs: name for name, theirs in ALIASES.items()}
    return {ours.get(name := str(key).replace("-", "_"), name): value for key, value in values.items()}
