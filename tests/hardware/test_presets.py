"""Presets follow from the planner: more memory never gives less."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from octavo.errors import BudgetExceeded, ConfigError
from octavo.hardware.plan import Workload, plan
from octavo.hardware.presets import ENOUGH, PROFILES, RESOLUTIONS, nearest, preset, profile

from .planning import seeing_model, text_model


def test_more_memory_never_gives_less() -> None:
    found = [preset(seeing_model(), PROFILES[f"{size}gb"]) for size in (8, 12, 16, 24, 32)]
    for less, more in itertools.pairwise(found):
        assert (more.dpi, more.batch) >= (less.dpi, less.batch)
    for one in found:
        assert one.plan.fits
        assert one.plan.peak <= one.profile.budget
        assert one.dpi in RESOLUTIONS


def test_enough_pages_are_worth_a_coarser_page() -> None:
    finer = Workload(pages=1, dpi=RESOLUTIONS[0], new=2000, batch=2)
    for budget in range(2 * 10**9, 8 * 10**9, 25 * 10**7):
        machine = replace(PROFILES["8gb"], budget=budget)
        found = preset(seeing_model(), machine)
        asked = {"budget": budget, "device": machine.device, "host_budget": machine.host_budget}
        try:
            plan(seeing_model(), finer, **asked)
        except BudgetExceeded:
            continue
        # Two of the finest would fit, but four coarser ones do too.
        if found.dpi < finer.dpi:
            assert found.batch >= ENOUGH
            return
    pytest.fail("no budget asks for the choice")


def test_the_laptop_reads_a_page_on_its_processor() -> None:
    found = preset(seeing_model(), profile("laptop"))
    assert found.plan.device == "cpu"
    assert found.plan.budget == 4 * 10**9
    assert found.batch >= 1


def test_a_model_that_does_not_see_keeps_its_resolution() -> None:
    found = preset(text_model(), profile("8gb"), workload=Workload(dpi=123))
    assert found.dpi == 123


def test_a_model_that_no_page_fits_is_refused() -> None:
    with pytest.raises(BudgetExceeded):
        preset(seeing_model(), replace(profile("8gb"), budget=10**8))


def test_profiles_are_found_by_name_and_by_machine() -> None:
    assert profile("24GB").memory == 24 * 10**9
    assert nearest("cuda", 20 * 10**9).name == "16gb"
    assert nearest("cpu", 16 * 10**9).name == "laptop"
    with pytest.raises(ConfigError, match="under the smallest"):
        nearest("cuda", 4 * 10**9)
    with pytest.raises(ConfigError) as wrong:
        profile("9gb")
    assert "laptop" in str(wrong.value)
