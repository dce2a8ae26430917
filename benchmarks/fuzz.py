"""Fuzz the validator with corrupted copies of the fixture datasets: it may raise nothing but a ConvkitError.

Run: python -m benchmarks.fuzz [cases] [seed]. Exit code 1 if another exception was raised; its traceback and the seed
and number of the case are printed.
"""

import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from convkit.errors import ConvkitError
from convkit.profiles import TargetModel
from convkit.validate.run import validate
from tests.fixtures.make_datasets import DIRECTORY

CASES = 10_000
MAX_BYTES = 2_000_000
INSERTED = [
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\0",
    b'"',
    b"{",
    b"[],",
    b"null",
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"<image>",
]
REPLACED = [(b'"A cat."', b"null"), (b'"images"', b'"image"'), (b"[", b"{"), (b"1", b"-1"), (b'"', b"")]


def flip(random: Random, content: bytes) -> bytes:
    """Replace one byte by a random one."""
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(1) + content[at + 1 :]


def cut(random: Random, content: bytes) -> bytes:
    """Truncate at a random position."""
    return content[: random.randrange(len(content) + 1)]


def insert(random: Random, content: bytes) -> bytes:
    """Insert a token that is special to a parser."""
    at = random.randrange(len(content) + 1)
    return content[:at] + random.choice(INSERTED) + content[at:]


def delete(random: Random, content: bytes) -> bytes:
    """Delete up to twenty bytes at a random position."""
    at = random.randrange(len(content) + 1)
    return content[:at] + content[at + random.randint(1, 20) :]


def repeat(random: Random, content: bytes) -> bytes:
    """Repeat a line at a random position."""
    lines = content.split(b"\n")
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return b"\n".join(lines)


def retype(random: Random, content: bytes) -> bytes:
    """Replace values by other types, and rename keys."""
    for old, new in REPLACED:
        if random.random() < 0.3:
            content = content.replace(old, new, 1)
    return content


MUTATIONS: list[Callable[[Random, bytes], bytes]] = [flip, cut, insert, delete, repeat, retype]


def corrupt(random: Random, directory: Path) -> None:
    """Corrupt one to four files, or replace some by a corrupted copy of another file."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    for _ in range(random.randint(1, 4)):
        path, other = random.choice(files), random.choice(files)
        content = (other if random.random() < 0.1 else path).read_bytes()[:MAX_BYTES]
        path.write_bytes(random.choice(MUTATIONS)(random, content))


def raises(random: Random, tree: Path, target: TargetModel | None) -> bool:
    """Return True if validating a corrupted copy of a dataset raises anything but a ConvkitError."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / tree.name
        shutil.copytree(tree, copy, symlinks=True)
        corrupt(random, copy)
        try:
            validate([copy], workers=0, target=target)
        except ConvkitError:
            pass
        except Exception:
            traceback.print_exc()
            return True
    return False


def main(cases: int = CASES, seed: int = 0) -> int:
    """Run the cases, every third one with the rules for a model."""
    trees = sorted(path for path in DIRECTORY.glob("*/*") if path.is_dir())
    target = TargetModel.from_options("phi-3.5-vision", None, 500)
    failures = 0
    for case in range(cases):
        random = Random(f"{seed} {case}")
        if raises(random, random.choice(trees), target if case % 3 == 0 else None):
            failures += 1
            print(f"seed {seed}, case {case}")
    print(f"{cases:,} cases, {failures:,} raised")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
