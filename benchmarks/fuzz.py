"""Fuzzing of the validator: spoilt copies of the fixture trees, none of which may raise anything but a ConvkitError.

Run: python -m benchmarks.fuzz [cases] [seed]. Exit code 1 if anything was raised; the seed and number of the case and
its trace are printed.
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
MOST_BYTES = 2_000_000
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
    """One byte becomes another."""
    at = random.randrange(len(content) + 1)
    return content[:at] + random.randbytes(1) + content[at + 1 :]


def cut(random: Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: random.randrange(len(content) + 1)]


def insert(random: Random, content: bytes) -> bytes:
    """Something that means something to a parser."""
    at = random.randrange(len(content) + 1)
    return content[:at] + random.choice(INSERTED) + content[at:]


def delete(random: Random, content: bytes) -> bytes:
    """Up to twenty bytes are gone."""
    at = random.randrange(len(content) + 1)
    return content[:at] + content[at + random.randint(1, 20) :]


def repeat(random: Random, content: bytes) -> bytes:
    """A line comes again elsewhere."""
    lines = content.split(b"\n")
    lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return b"\n".join(lines)


def retype(random: Random, content: bytes) -> bytes:
    """Values of other kinds, keys of other names."""
    for old, new in REPLACED:
        if random.random() < 0.3:
            content = content.replace(old, new, 1)
    return content


MUTATIONS: list[Callable[[Random, bytes], bytes]] = [flip, cut, insert, delete, repeat, retype]


def spoil(random: Random, directory: Path) -> None:
    """Change one to four files, now and then into a copy of another."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    for _ in range(random.randint(1, 4)):
        path, other = random.choice(files), random.choice(files)
        content = (other if random.random() < 0.1 else path).read_bytes()[:MOST_BYTES]
        path.write_bytes(random.choice(MUTATIONS)(random, content))


def raises(random: Random, tree: Path, target: TargetModel | None) -> bool:
    """Whether validating a spoilt copy of a tree ends in anything but a report or a clear error."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / tree.name
        shutil.copytree(tree, copy, symlinks=True)
        spoil(random, copy)
        try:
            validate([copy], workers=0, target=target)
        except ConvkitError:
            pass
        except Exception:
            traceback.print_exc()
            return True
    return False


def main(cases: int = CASES, seed: int = 0) -> int:
    """Run the cases; every third one with the rules about a model."""
    trees = sorted(path for path in DIRECTORY.glob("*/*") if path.is_dir())
    target = TargetModel.from_options("phi-3.5-vision", None, 500)
    bad = 0
    for case in range(cases):
        random = Random(f"{seed} {case}")
        if raises(random, random.choice(trees), target if case % 3 == 0 else None):
            bad += 1
            print(f"seed {seed}, case {case}")
    print(f"{cases:,} cases, {bad:,} raised")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
