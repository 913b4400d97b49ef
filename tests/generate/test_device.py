"""Where a model runs: never on the CPU in silence when a GPU was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdbatch.device_choice import VARIABLE
from sdbatch.errors import GpuUnusable, UserError
from sdbatch.generate import device
from sdbatch.generate.device import device_of, gpu_fault, is_built_for

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU that torch can use")


@pytest.fixture(autouse=True)
def _nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


@no_gpu
@pytest.mark.fault(
    "A4", "num_gpus: 1 and torch without a usable GPU", "a machine fault that names torch and the remedy"
)
@pytest.mark.parametrize("is_reserved", [True, False])
def test_a_gpu_that_is_asked_for_and_cannot_be_used_is_a_fault(is_reserved: bool) -> None:
    with pytest.raises(GpuUnusable, match=r"torch .* cannot use it: .+; .* num_gpus: 0, or set SDBATCH_DEVICE=cpu"):
        device_of(1.0, is_reserved=is_reserved)
    with pytest.raises(GpuUnusable):
        device_of(0.25, is_reserved=is_reserved)


@no_gpu
@pytest.mark.fault("A4", "num_gpus: null, a GPU reserved, a card that torch cannot use", "a machine fault")
def test_a_reserved_card_is_not_passed_over_where_the_job_leaves_the_number_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "has_card", lambda: True)
    with pytest.raises(GpuUnusable):
        device_of(None, is_reserved=True)


@no_gpu
def test_a_laptop_needs_no_word_and_a_gpu_in_name_alone_is_said() -> None:
    assert device_of(None, is_reserved=False) == device.Device(name="cpu")
    assert device_of(0, is_reserved=False) == device.Device(name="cpu")
    noted = device_of(None, is_reserved=True)
    assert noted.name == "cpu"
    assert "a GPU was reserved and this machine has none" in noted.note


def test_the_environment_may_say_cpu_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "cpu")
    assert device_of(1.0, is_reserved=True) == device.Device(name="cpu")
    monkeypatch.setenv(VARIABLE, "cuda:1")
    with pytest.raises(UserError, match="SDBATCH_DEVICE is 'cuda:1'; it is cpu, or not set"):
        device_of(1.0, is_reserved=True)


@no_gpu
def test_the_reason_says_what_this_build_of_torch_lacks() -> None:
    fault = gpu_fault()
    assert "\n" not in fault
    assert ("for CPUs alone" in fault) == (torch.version.cuda is None and torch.version.hip is None)


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_90"], (7, 0), False),  # CUDA 13's wheels on a V100
        (["sm_75", "sm_80", "sm_90"], (7, 5), True),
        (["sm_75", "sm_80", "sm_90"], (8, 6), True),
        (["sm_80", "sm_90a"], (9, 0), True),
        (["sm_80", "sm_90"], (12, 0), False),
        (["sm_80", "compute_90"], (12, 0), True),
        ([], (9, 0), True),  # a build that does not say
    ],
)
def test_a_build_runs_on_cards_of_its_machine_code_and_on_later_ones_of_its_portable_code(
    architectures: list[str], capability: tuple[int, int], runs: bool
) -> None:
    assert is_built_for(architectures, capability) == runs


def test_the_drivers_version_is_read_from_the_kernels_own_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\nGCC version: 12"
    (tmp_path / "version").write_text(said)
    monkeypatch.setattr(device, "Path", lambda _: tmp_path / "version")
    assert device.driver_version() == "580.65.06"
