"""``octavo doctor`` on devices, attention, measured speed, and models that are here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from octavo.cli import _accelerators, _packages, _present
from octavo.cli._accelerators import attention_check, device_check, gpu_checks
from octavo.cli._checks import Check
from octavo.hardware import bandwidth, probe
from octavo.hardware.accelerators import Accelerator, DeviceKind
from octavo.hardware.architectures import nvidia_limits
from octavo.hardware.asking import Answer
from octavo.hardware.bandwidth import Bandwidth, machine_facts
from octavo.hardware.disk_rate import DiskRate
from octavo.hardware.disks import DiskKind, disk_identity
from octavo.hardware.kernels import AttentionKernel
from octavo.hardware.rates import DeviceRate

from .conftest import Program

TORCH = Answer(
    {"version": "2.13", "cuda": None, "hip": None, "devices": [], "why": None, "cpu_flash": True}
)


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("OCTAVO_HOME", str(place))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(_accelerators, "ask_accelerators", lambda: {"torch": TORCH})
    return place


DISK = DiskRate(2.5e9, True, 10**9)


def drawn(folder: Path, disk: DiskRate = DISK) -> Bandwidth:
    return Bandwidth(
        machine_facts(probe()),
        disk_identity(folder),
        DiskKind.NVME,
        disk,
        8,
        1e10,
        4e10,
        {"fp32": 5e11},
        (DeviceRate("Drawn", 1.2e10, 1.3e10, {"fp16": 1e14}),),
        0.0,
        ("something not measured",),
    )


def test_a_broken_torchvision_is_worse_than_none(home: Path) -> None:
    broken = Answer(None, "operator torchvision::nms does not exist")
    check = by_name(gpu_checks({"torch": TORCH, "torchvision": broken}))["torchvision loads"]
    assert (check.state, check.fix) == ("note", "pip uninstall torchvision")
    assert "worse than none" in check.value
    assert "nms" in check.value
    sound = {"torch": TORCH, "torchvision": Answer({"version": "0.28"})}
    assert "torchvision loads" not in by_name(gpu_checks(sound))


def test_a_broken_torch(home: Path) -> None:
    checks = by_name(gpu_checks({"torch": Answer(None, "ends the process that loads it (-11)")}))
    assert checks["torch loads"].state == "note"
    assert checks["torch loads"].fix == "pip install --force-reinstall torch"
    assert checks["attention"].value == "on cpu: none"


def test_really_asked_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("import os; os._exit(7)")
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('nms')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(_accelerators, "installed", lambda name: name.startswith("torch"))
    answers = _accelerators.ask_accelerators()
    assert answers["torch"].error == "ends the process that loads it (7)"
    assert answers["torchvision"].error == "nms"


def test_a_device_and_what_it_cannot_do() -> None:
    limits = nvidia_limits((6, 1))
    assert limits is not None
    card = Accelerator(
        DeviceKind.CUDA, "Drawn", 11 * 10**9, 10**9, (6, 1), None, limits.reasons,
        architecture=limits,
    )  # fmt: skip
    check = device_check(card)
    assert (check.name, check.state, check.fix) == ("cuda:0", "note", None)
    assert check.value.startswith("Drawn, 1.0 GB free of 11.0 GB, compute capability 6.1, Pascal; ")
    assert all(reason in check.value for reason in limits.reasons)


def test_a_device_that_cannot_be_used() -> None:
    card = Accelerator(DeviceKind.CUDA, None, None, None, None, None, ("why",), ready=False)
    check = device_check(card)
    assert (check.state, check.value) == ("note", "not usable: unknown; why")
    assert (check.fix or "").startswith("install torch for cuda")
    current = Accelerator(DeviceKind.MPS, "Drawn", None, None, None, None)
    assert device_check(current) == Check("GPU", "mps:0", "ok", "Drawn")


def test_attention() -> None:
    kernels = [
        AttentionKernel("sdpa", True),
        AttentionKernel("flex_attention", None, "needs a compiler"),
        AttentionKernel("xformers", False, "not installed"),
    ]
    here = attention_check(kernels, None).value
    assert here == "on cpu: sdpa; perhaps flex_attention (needs a compiler)"
    card = Accelerator(DeviceKind.CUDA, "Drawn", None, None, None, None)
    assert attention_check(kernels, card).value.endswith("; not xformers (not installed)")


def test_speed_that_was_never_measured(home: Path, program: Program) -> None:
    ended = program("doctor")
    assert "measured: octavo doctor --bench" in ended.out
    assert not home.exists()


def test_bench_measures_shows_and_keeps(
    home: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(folder: Path, *, with_torch: bool, **_: object) -> Bandwidth:
        asked.append((folder, with_torch))
        return drawn(folder)

    monkeypatch.setattr(bandwidth, "measure", measure)
    monkeypatch.setenv("COLUMNS", "120")
    for arguments in (("--bench",), ()):
        out = program("doctor", *arguments).out
        assert "reads 2.50 GB/s (1000 MB, direct)" in out
        assert "copies 10.00 GB/s with 1 thread, 40.00 GB/s with 8" in out
        assert "fp32 500 GFLOP/s" in out
        assert "12.00 GB/s to it, 13.00 GB/s back, fp16 100000 GFLOP/s" in out
        assert "something not measured" in out
    assert asked == [(home, True)]


def test_a_disk_that_could_not_be_measured(
    home: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = DiskRate(None, note="not measured: the disk is full")
    monkeypatch.setattr(bandwidth, "measure", lambda folder, **_: drawn(folder, rate))
    facts = json.loads(program("doctor", "--bench", "--json").out)
    speed = by_name(Check(**one) for one in facts["checks"] if one["group"] == "Speed")
    assert (speed["disk"].state, speed["disk"].value) == ("note", rate.note)


def test_bench_in_a_home_that_cannot_be(
    home: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.touch()
    ended = program("doctor", "--bench")
    assert ended.code == 2
    assert "set OCTAVO_HOME to a folder that this user may write to" in ended.err


def test_what_the_disk_tier_was_tuned_to(
    home: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = pytest.importorskip("octavo.memory.disk.tuning")
    monkeypatch.setenv("COLUMNS", "120")
    assert "disk tier" not in program("doctor").out
    tuning.save_tuning(tuning.Tuning(2 << 20, 8, True, 3e9, 1e9), home)
    assert "2 MiB blocks, 8 at a time: reads 3.00 GB/s, writes 1.00 GB/s" in program("doctor").out
    # What reads it loads torch, so it is not asked where torch would end the process.
    monkeypatch.setattr(_accelerators, "ask_accelerators", lambda: {"torch": Answer(None, "no")})
    assert "disk tier" not in program("doctor").out


def test_models_that_were_pulled(home: Path, tmp_path: Path) -> None:
    models = home / "models"
    for name, note in (
        ("owner--whole", '{"name": "owner/whole", "licence": "MIT"}'),
        ("owner--part", None),
        ("owner--damaged", "{"),
    ):
        (models / name).mkdir(parents=True)
        with (models / name / "model.safetensors").open("wb") as file:
            file.truncate(3 * 10**8)
        if note is not None:
            (models / name / "octavo.json").write_text(note)
    snapshot = tmp_path / "hub/models--other--cached/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    (tmp_path / "hub/models--other--empty").mkdir()
    checks = by_name(_present.model_checks())
    assert checks["owner/whole"].value == "pulled, 0.3 GB, MIT"
    assert (checks["owner/part"].state, checks["owner/part"].fix) == (
        "note",
        "octavo pull owner/part",
    )
    assert checks["owner/damaged"].state == "note"
    assert checks["other/cached"].state == "ok"
    assert "other/empty" not in checks


def test_models_that_packages_carry(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.models import packaged

    (first, *_) = packaged.PACKAGED
    monkeypatch.setattr(
        packaged, "missing_packages", lambda model: () if model is first else ("x",)
    )
    found = list(_present.model_checks())
    assert (found[0].name, found[0].state) == (first.name, "ok")
    assert {check.state for check in found[1:]} == {"optional"}
    assert all((check.fix or "").startswith("pip install") for check in found[1:])
    assert not home.exists()  # nothing was unpacked


def test_the_hubs_cache_is_where_its_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert _present.hub_cache() == Path.home() / ".cache/huggingface/hub"
    monkeypatch.setenv("HF_HOME", "/h")
    assert _present.hub_cache() == Path("/h/hub")
    monkeypatch.setenv("HF_HUB_CACHE", "/c")
    assert _present.hub_cache() == Path("/c")


def test_an_extra_with_a_version_that_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["rich>=1", "packaging>=999; extra == 'models'", "rich>=1; extra == 'models'"]
    monkeypatch.setattr(_packages.importlib.metadata, "requires", lambda _: declared)
    answers = {name: Answer({"version": "1"}) for name in _packages._LOADED}
    check = by_name(_packages.package_checks(answers))["models"]
    assert check.state == "optional"
    assert check.value.startswith("without packaging >=999 (here: ")
    assert check.fix == "pip install 'octavo[models]'"
