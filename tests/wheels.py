"""Build and install packages of pure Python, for tests of plug-ins."""

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path


def make_wheel(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> Path:
    """Write a wheel of pure Python by hand."""
    info = f"{name}-1.0.dist-info"
    files = {
        **modules,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by-hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": entry_points,
    }
    digests = {path: hashlib.sha256(content.encode()).digest() for path, content in files.items()}
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(files[path].encode())}"
        for path, digest in digests.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name_in_wheel, content in files.items():
            wheel.writestr(name_in_wheel, content)
    return path


def install(site: Path, wheels: Sequence[Path]) -> Path:
    """Install wheels into a folder, to be put on PYTHONPATH."""
    command = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target"]
    subprocess.run([sys.executable, *command, str(site), *map(str, wheels)], check=True)
    return site
