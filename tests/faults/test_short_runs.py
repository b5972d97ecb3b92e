"""A short run over each store. HERMOD_TEST_FAULTS_SEED draws other faults than those of every day."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.kept import attempt
from tests.faults.run import Options
from tests.faults.verdict import chosen
from tests.faults.world import STORES

# In which stores are killed, disks fail, a log is torn, and APIs and notifiers are killed and paused.
SEEDS = {"sqlite": 39599, "redis": 7222, "mongodb": 8561}
SECONDS = 18.0  # of faults and quiet times


@pytest.mark.timeout(300)
@pytest.mark.parametrize("store", STORES)
def test_every_promise_is_kept_under_faults(store: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("HERMOD_TEST_FAULTS_SEED", SEEDS[store]))
    options = Options(store=store, seed=seed, seconds=SECONDS, quiet=(0.5, 1.5), folder=tmp_path / "run")
    report, kept = attempt(options)
    assert kept is None, f"{kept.text()}\n{report.text()}"
    acknowledged = [each for each in chosen(report.history, "post") if each.outcome == "ok"]
    assert len(acknowledged) > 20, "there was hardly any load"
    assert report.document()["faults injected"] >= 3
