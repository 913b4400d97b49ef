"""A unit on its way to a worker: nothing of it changes, and it goes along with Ray's message."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from sdbatch.canonical import canonical
from sdbatch.recipe import request_key
from sdbatch.types import Request, Source, Unit

INLINE_BYTES_MAX = 100 * 1024
"""Ray's `max_direct_call_object_size`: a longer argument lies in a store of objects."""


def _request(number: int, **changes: Any) -> Request:
    values = {
        "guidance_scale": 7.5,
        "height": 512,
        "key_version": 3,
        "model": "b3" * 32,
        "num_inference_steps": 30,
        "prompt": f"scene number {number} of an old town by the sea, in the evening light",
        "seed": (number + 1) * 7_919_000_000_017 % 2**53,
        "task": "text-to-image",
        "width": 512,
    }
    recipe = canonical(values)
    request = Request(
        id=f"row-{number:07d}",
        request_key=request_key(recipe),
        recipe=recipe,
        outputs=(0,),
        sources=(),
        model="sd",
        batch_key="k",
        cost_tflop=1.5,
        shape="text-to-image 512 x 512",
    )
    return request._replace(**changes)


SOURCE = Source(role="images", url="s3://brand/mug.png", digest="sha256:" + "0" * 64)
UNLIKE = {
    "sources": (SOURCE,),
    "outputs": (0, 2),
    "takers": (("b", "c"), ("b",)),
    "attempt": 1,
    "replaces": (("b", 2, 0),),
}


@pytest.mark.parametrize(
    "requests",
    [
        (_request(0),),
        (_request(0), _request(0, id="b")),
        (_request(0), _request(1, **UNLIKE), _request(2)),
        tuple(map(_request, range(100))),
    ],
    ids=["one", "two but for the id", "unlike", "many"],
)
def test_a_unit_crosses_whole(requests: tuple[Request, ...]) -> None:
    unit = Unit(id="000001", model="sd", requests=requests, batch_size=4, cost_tflop=3.0, rate_tflop_per_s=0.5)

    crossed = pickle.loads(pickle.dumps(unit))

    assert crossed == unit
    assert {type(request) for request in crossed.requests} == {Request}
    assert [list(map(type, request)) for request in crossed.requests] == [list(map(type, one)) for one in requests]


def test_a_thousand_requests_go_along_with_the_message() -> None:
    unit = Unit(id="000001", model="sd", requests=tuple(map(_request, range(1024))), batch_size=32, cost_tflop=3.0)

    assert len(pickle.dumps(unit)) < INLINE_BYTES_MAX
