"""How fast training is on this machine: the real trainer on a model of random weights, measured."""

NOT_MEASURED = frozenset(
    (
        *("model", "output_dir", "num_train_epochs", "deepspeed", "fsdp"),
        *("eval_split", "eval_steps", "eval_limit", "eval_batch_size", "eval_max_new_tokens"),
        *("save_steps", "save_total_limit", "check_checkpoint", "resume", "report_to"),
    )
)
"""Options of a run that have no bearing on how fast a step is."""
