"""``benchmarks/gpu.sh --smoke``: every part of it, on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu.sh"


@pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks/ comes with the repository alone")
@pytest.mark.skipif("DIFFUSIONPOSE_SMOKE" not in os.environ, reason="minutes: set DIFFUSIONPOSE_SMOKE=1")
def test_every_part_runs_and_leaves_its_numbers(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [SCRIPT, "--smoke", "--output", tmp_path], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = (tmp_path / "log.txt").read_text()
    assert log.count(": status 0 after") == 7
    for name in ("heatmaps", "diffusionpose"):
        assert (tmp_path / f"{name}.safetensors").stat().st_size < 16 * 2**20
        assert len((tmp_path / f"{name}.csv").read_text().splitlines()) == 2
    assert (tmp_path / "benchmark" / "benchmark.json").exists()


@pytest.mark.skipif(not SCRIPT.exists(), reason="benchmarks/ comes with the repository alone")
def test_without_packs_it_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "--packs", tmp_path, "--wheels", tmp_path, "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no packs train-* and val-*" in done.stderr
