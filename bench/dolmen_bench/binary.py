"""The dolmen binary: what would be packaged of this checkout, made when it is missing or older than its sources.

Also the two small programs of this folder, built beside it.
"""

import os
import sys

from . import processes
from .trouble import Mistake, Trouble

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD_WITHIN_S = 3600
SOURCES = ("Cargo.toml", "Cargo.lock", "crates", "examples")


def dolmen(given=None):
    """The path of the binary to measure; one that is given is taken as it is."""
    if given:
        path = os.path.abspath(given)
        if not os.access(path, os.X_OK):
            raise Mistake(f"{given} is not a program\nhint: --dolmen takes the path of a dolmen binary")
        return path
    path = os.path.join(target(), "dist", "dolmen")
    if _is_stale(path):
        _build(["cargo", "build", "--profile", "dist", "--bins", "--locked"])
        # Cargo leaves a binary alone that an edit did not change; then it is as good as new.
        os.utime(path)
    return path


def tool(name):
    """One of the programs of this folder: bench/NAME.rs."""
    source = os.path.join(ROOT, "bench", f"{name}.rs")
    folder = os.path.join(target(), "bench")
    path = os.path.join(folder, name)
    if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(source):
        os.makedirs(folder, exist_ok=True)
        _build(["rustc", "--edition", "2024", "-O", "-o", path, source])
    return path


def target():
    return os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")


def _build(words):
    print(f"bench: building: {' '.join(words)}", file=sys.stderr, flush=True)
    try:
        processes.run(words, BUILD_WITHIN_S, cwd=ROOT)
    except FileNotFoundError:
        raise Mistake(f"{words[0]} is not installed\nhint: https://rustup.rs, or give --dolmen PATH") from None
    except Trouble as trouble:
        raise Trouble(f"the build failed: {trouble}") from None


def _is_stale(path):
    if not os.path.exists(path):
        return True
    made = os.path.getmtime(path)
    return any(os.path.getmtime(source) > made for source in _sources())


def _sources():
    for name in SOURCES:
        path = os.path.join(ROOT, name)
        if os.path.isfile(path):
            yield path
        for folder, _, files in os.walk(path):
            yield from (os.path.join(folder, file) for file in files if file.endswith((".rs", ".toml")))
