"""Fixtures that the tests of conversions share."""

from pathlib import Path

import pytest

from tests.convert.helpers import SOUND_CLIP, write_clip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a source with one sound clip."""
    write_clip(tmp_path / "source" / SOUND_CLIP, 9)
    return tmp_path / "source"
