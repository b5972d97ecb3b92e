"""The drivers that the storage suite runs over, one line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to have a store."""

    name: str
    uri: Callable[[pytest.FixtureRequest, Path], str]  # makes the URI of a fresh store
    shared: bool = True  # whether several processes can use one store
    examples: int = 100  # histories that the model test tries


VARIANTS = (
    Variant(name="memory", uri=lambda _, __: "memory:", shared=False),
    Variant(name="sqlite", uri=lambda _, folder: f"sqlite:///{folder / 'hermod.db'}"),
)
