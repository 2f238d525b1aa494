"""Finds the programs that other systems need: on this machine, or installed or compiled, once, into a cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.compare.system import Missing
from pfsb.bench.client import cache_directory

CALL_SECONDS: Final = 600.0
"""How long, in seconds, an installation or a build may take."""


def program(name: str, package: str) -> str:
    """The path of an installed program. Raises `Missing`, whose text names the Debian package to install."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed (Debian: apt-get install {package})")
    return found


def install(packages: Sequence[str]) -> None:
    """Install those of these Debian packages that are not installed. Raises `Missing`.

    This needs root. The text of the error has the command for another user.
    """
    absent = [name for name in packages if not _is_installed(name)]
    if not absent:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *absent]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"only root can install what it needs (Debian: {' '.join(command)})")
    _call(command, f"installing {', '.join(absent)}", {"DEBIAN_FRONTEND": "noninteractive"})


def _is_installed(package: str) -> bool:
    if shutil.which("dpkg-query") is None:
        return False
    asked = ["dpkg-query", "--show", "--showformat", "${db:Status-Abbrev}", package]
    return subprocess.run(asked, capture_output=True, text=True).stdout.startswith("ii")


def python_environment(name: str, *requirements: str) -> Path:
    """The directory of a virtual environment with these packages of PyPI, made at first use. Raises `Missing`."""
    directory = cache_directory() / name
    if not (directory / "complete").exists():
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", "--clear", str(directory)], [*pip, *requirements]):
            _call(command, f"pip install {' '.join(requirements)}")
        (directory / "complete").touch()
    return directory


def go_client(source: Path, **environment: str) -> str:
    """The path of a load client in Go, built of `source` and `closed_loop.go` at first use. Raises `Missing`."""
    sources = (source, source.with_name("closed_loop.go"))
    command = [program("go", "golang-go"), "build", "-o", f"{{out}}/{source.stem}", *map(str, sources)]
    environment = {"GO111MODULE": "off", "GOFLAGS": "", **environment}
    return str(built(sources, source.stem.replace("_", "-"), command, environment) / source.stem)


def built(
    sources: Sequence[Path], kind: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Path:
    """The directory in which `command` has built a program from its source files. Raises `Missing`.

    `{out}` in the command stands for that directory.
    """
    content = b"".join(source.read_bytes() for source in sources)
    digest = hashlib.blake2b(content + repr(command).encode(), digest_size=8).hexdigest()
    directory = cache_directory() / f"{kind}-{digest}"
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        # The directory appears only when the build is complete, so that a failed build is not taken for a complete one.
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            out = Path(scratch) / "out"
            out.mkdir()
            _call([word.replace("{out}", str(out)) for word in command], f"building {sources[0].name}", environment)
            out.rename(directory)
    return directory


def _call(command: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **(environment or {})}, timeout=CALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Missing(f"{what}: not within {CALL_SECONDS:g} s") from None
    if done.returncode:
        raise Missing(f"{what}: {(done.stderr or done.stdout).strip()[-400:]}")
