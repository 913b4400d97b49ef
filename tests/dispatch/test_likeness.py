"""Workers are compared by versions and device, each difference is told once."""

from __future__ import annotations

import pytest

from sdbatch.dispatch.likeness import COMPARED, Likeness, Standard, values_by_fact

FACTS = {**dict.fromkeys(COMPARED, "1.0"), "GPU": "", "host": "a", "pid": "1", "python": "3.12.1"}


@pytest.mark.parametrize("name", COMPARED)
def test_each_version_and_the_device_are_compared(name: str) -> None:
    facts = {"w0": FACTS, "w1": {**FACTS, name: "2.0"}, "w2": FACTS}

    assert values_by_fact(facts) == {name: {FACTS[name]: ("w0", "w2"), "2.0": ("w1",)}}


def test_where_a_worker_is_does_not_make_it_unlike() -> None:
    elsewhere = {**FACTS, "host": "b", "pid": "2", "node": "n", "python": "3.13.0"}

    assert values_by_fact({"w0": FACTS, "w1": elsewhere}) == {}


def test_what_a_worker_does_not_state_is_not_compared() -> None:
    assert values_by_fact({"w0": FACTS, "w1": {"host": "a", "pid": "1", "python": "3.12.1"}}) == {}


def test_the_first_worker_sets_the_standard_and_a_difference_is_told_once() -> None:
    likeness = Likeness({})
    newer = {**FACTS, "torch": "2.0"}

    assert likeness.compare("w0", {"a", "b"}, FACTS) == []
    assert list(map(str, likeness.compare("w1", {"a", "b"}, newer))) == ["worker w1 has torch 2.0, worker w0 had 1.0"]
    assert likeness.compare("w2", {"a", "b"}, newer) == []


def test_an_earlier_run_sets_the_standard() -> None:
    likeness = Likeness({"a": Standard(source="run r1", facts={**FACTS, "GPU": "NVIDIA H100"})})

    assert list(map(str, likeness.compare("w0", {"a"}, FACTS))) == ["worker w0 has GPU none, run r1 had NVIDIA H100"]


def test_workers_of_different_models_may_differ() -> None:
    likeness = Likeness({})

    assert likeness.compare("w0", {"on-gpu"}, {**FACTS, "GPU": "NVIDIA H100"}) == []
    assert likeness.compare("w1", {"on-cpu"}, FACTS) == []
