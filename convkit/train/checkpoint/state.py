"""RunState: the position of a training run and its identity, saved as state.json in each checkpoint."""

import json
from dataclasses import asdict, field
from typing import Any, Self

from pydantic import NonNegativeInt, PositiveInt, TypeAdapter
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RunState:
    """Everything besides tensors that a run needs to resume.

    Random numbers and the learning-rate schedule need no state: both follow from the step.
    """

    step: NonNegativeInt
    """Number of completed steps."""
    rows: NonNegativeInt
    """Rows trained on so far; a row counts once per epoch."""
    fingerprint: dict[str, Any]
    """Everything the weights depend on: data, model, schedule and `Config.resume_fingerprint`."""
    processes: PositiveInt
    """World size of the run."""
    sharding: str = ""
    """The sharding option in use, such as `--fsdp`; empty without one."""
    loss_scale: dict[str, Any] = field(default_factory=dict)
    """State of the float16 loss scale; empty in other types."""

    def to_json(self) -> str:
        """Return the state as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a state from JSON.

        Raises:
            pydantic.ValidationError: the content is not JSON, or a field is missing or has the wrong type.
        """
        return TypeAdapter(cls).validate_json(content, strict=True)

    @property
    def layout(self) -> str:
        """Return the world size and the sharding in words."""
        return f"{self.processes} process{'es' * (self.processes > 1)}{self.sharding and f' with {self.sharding}'}"
