"""Text encoders in host memory: how often their weights are copied, and when they leave."""

from __future__ import annotations

import inspect
from collections import Counter
from typing import Any

import diffusers
import pytest
import support.toy_models
import torch
from support.revisions import PINNED
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sdbatch.families import FAMILIES, Family
from sdbatch.generate.batch import make_batch, set_threads
from sdbatch.generate.item import Item
from sdbatch.generate.load import LoadedModel, load_model
from sdbatch.generate.memo import ENCODERS
from sdbatch.generate.visiting import Visits
from sdbatch.job import Model
from sdbatch.recipe import recipe_from


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts copies of tensors of some shapes.

    Args:
        shapes: Shape by name.
    """

    def __init__(self, shapes: dict[str, torch.Size]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: Counter[str] = Counter()
        self._shapes = shapes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) == "aten._to_copy.default":
            self.counted.update(name for name, shape in self._shapes.items() if args[0].shape == shape)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    set_threads(1)
    folder = tmp_path_factory.mktemp("visiting")
    support.toy_models.make_tiny_sdxl(folder, width_2=48)
    return load_model("xl", Model(path=str(folder), revision=PINNED, offload_text_encoder=True), PINNED, {})


def _item(number: int) -> Item:
    recipe = {
        "task": "text-to-image",
        "prompt": f"scene {number}",
        "negative_prompt": f"snow {number}",
        "height": 64,
        "width": 64,
        "num_inference_steps": 1,
        "guidance_scale": 4.0,
        "parameters": {},
    }
    return Item(recipe=recipe_from(recipe), seed=number)


def test_each_text_encoder_is_copied_once_a_call_and_lies_on_the_host_while_the_denoiser_runs(
    model: LoadedModel,
) -> None:
    pipeline = model.pipeline(model.family.tasks["text-to-image"][0], "")
    encoders = {name: getattr(pipeline, name) for name in ("text_encoder", "text_encoder_2")}
    tables = {name: encoder.get_input_embeddings().weight for name, encoder in encoders.items()}
    assert tables["text_encoder"].shape != tables["text_encoder_2"].shape, "the two could not be told apart"
    hosts = {name: table.data_ptr() for name, table in tables.items()}
    while_denoising: list[dict[str, int]] = []
    hook = pipeline.unet.conv_in.register_forward_hook(
        lambda *_: while_denoising.append({name: table.data_ptr() for name, table in tables.items()})
    )

    with Copies({name: table.shape for name, table in tables.items()}) as copies:
        make_batch(model, [_item(number) for number in range(10)], None)  # 10 prompts and 10 negatives: 8 + 2 twice
        assert copies.counted == {"text_encoder": 1, "text_encoder_2": 1}
        make_batch(model, [_item(3), _item(4)], None)
        assert copies.counted == {"text_encoder": 1, "text_encoder_2": 1}, "known texts need no encoder"
    hook.remove()
    assert while_denoising == [hosts, hosts]


def test_a_call_that_fails_while_texts_are_encoded_leaves_the_weights_on_the_host(
    model: LoadedModel,
) -> None:
    encoder = model.pipeline(model.family.tasks["text-to-image"][0], "").text_encoder
    table = encoder.get_input_embeddings().weight
    host = table.data_ptr()

    def fail(*_: object) -> None:
        assert table.data_ptr() != host, "the weights were not brought"
        raise RuntimeError("out of memory")

    hook = encoder.get_input_embeddings().register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        make_batch(model, [_item(77)], None)
    hook.remove()
    assert table.data_ptr() == host


def test_weights_lie_on_the_host_again_when_memory_runs_out_while_they_are_copied() -> None:
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3)
    layers = torch.nn.Sequential(first, second)
    before = [weight.data_ptr() for weight in layers.parameters()]
    visits = Visits("cpu")

    class Full(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if str(func) == "aten._to_copy.default" and args[0].data_ptr() == before[-1]:
                assert first.weight.data_ptr() != before[0], "nothing was copied yet"
                raise RuntimeError("out of memory")
            return func(*args, **(kwargs or {}))

    with pytest.raises(RuntimeError, match="out of memory"), Full():  # type: ignore[no-untyped-call]
        visits.forward(layers)(torch.ones(1, 2))
    visits.end()
    assert [weight.data_ptr() for weight in layers.parameters()] == before


def test_what_an_encoder_is_given_is_sent_where_its_weights_are() -> None:
    """SDXL's pipeline sends tokens to where the encoder lies when it asks, which is host memory; a GPU refused them."""

    class Sent(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.sent: list[tuple[int, Any]] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.Tensor.to and args[0].dtype == torch.long:
                self.sent.append((id(args[0]), args[1]))
            return func(*args, **(kwargs or {}))

    class Encoder(torch.nn.Embedding):
        def forward(self, tokens: torch.Tensor, *, mask: torch.Tensor, words: str) -> torch.Tensor:  # type: ignore[override]
            return super().forward(tokens) * mask[..., None]

    tokens, mask = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long)
    visit = Visits("cpu").forward(Encoder(4, 2))
    with Sent() as seen:
        visit(tokens, mask=mask, words="a fox")

    assert set(seen.sent) == {(id(tokens), "cpu"), (id(mask), "cpu")}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.title)
def test_every_text_encoder_of_a_family_visits(family: Family) -> None:
    """One that did not would lie in host memory, and be given texts on the device."""
    pipelines = {route.pipeline for routes in family.tasks.values() for route in routes}
    modules = {name for one in pipelines for name in inspect.signature(getattr(diffusers, one).__init__).parameters}

    assert {name for name in modules if name.startswith("text_encoder")} <= set(ENCODERS)


def test_weights_are_left_as_they_are_where_nothing_is_pinned() -> None:
    host = torch.ones(3)

    assert Visits("cpu")._pinned(host) is host
