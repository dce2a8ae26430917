"""Fixtures of the tests of media."""

from pathlib import Path

import cv2
import pytest

from tests.fixtures.make_clips import write_clip
from tests.media.clips import CLIP_FRAMES, Counted


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    write_clip(path, CLIP_FRAMES)
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counted]:
    Counted.opened = Counted.released = Counted.retrieved = Counted.grabbed = 0
    monkeypatch.setattr(cv2, "VideoCapture", Counted)
    return Counted
