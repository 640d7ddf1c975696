"""Options of all plugins: bounded numbers, and what a check accepts can be built."""

import random
import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from neurovocal.engine.config.schema import MultiConfig, SingleConfig
from neurovocal.engine.contracts.bundle import load_bundle
from neurovocal.engine.contracts.clock import SystemClock
from neurovocal.engine.contracts.options import Options, Order
from neurovocal.engine.contracts.plugin import GROUPS, BuildContext
from neurovocal.engine.contracts.registry import Registry
from neurovocal.engine.contracts.types import StreamInfo

REGISTRY = Registry()
PLUGINS = [(kind, name) for kind in GROUPS for name in REGISTRY.names(kind)]
ABSURD = [
    -1,
    0,
    -(10**18),
    1e300,
    -1e300,
    10**18,
    10**400,
    -(10**400),
    float("inf"),
    float("-inf"),
    float("nan"),
    True,
    "many",
    [],
    {},
]


def models_in(annotation):
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
        return
    for argument in get_args(annotation):
        yield from models_in(argument)


def all_models():
    roots = [REGISTRY.get(kind, name).options for kind, name in PLUGINS]
    found = {m for root in [*roots, SingleConfig, MultiConfig] for m in models_in(root)}
    return sorted(found, key=lambda model: (model.__module__, model.__qualname__))


def numbers_in(annotation, metadata):
    """Yield the constraints of each number that an option can be."""
    if annotation in (int, float):
        yield metadata
    elif get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        yield from numbers_in(inner, [*metadata, *own])
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from numbers_in(part, metadata)
    elif get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from numbers_in(part, [])


def bounds_of(metadata):
    flat = [c for each in metadata for c in getattr(each, "metadata", [each])]
    lower = [getattr(c, n) for c in flat for n in ("ge", "gt") if hasattr(c, n)]
    upper = [getattr(c, n) for c in flat for n in ("le", "lt") if hasattr(c, n)]
    return [b for b in lower if b is not None], [b for b in upper if b is not None]


@pytest.mark.parametrize("model", all_models(), ids=lambda m: m.__qualname__)
def test_every_number_has_a_lower_and_an_upper_bound(model):
    for name, field in model.model_fields.items():
        for metadata in numbers_in(field.annotation, field.metadata):
            lower, upper = bounds_of(metadata)
            assert lower, f"{name} has no lower bound"
            assert upper, f"{name} has no upper bound"


@pytest.mark.parametrize("model", all_models(), ids=lambda m: m.__qualname__)
def test_every_number_refuses_what_is_beyond_its_bounds(model):
    for name, field in model.model_fields.items():
        # Within lists and pairs, a number alone is refused as such.
        found = list(numbers_in(field.annotation, field.metadata))
        if len(found) != 1 or bounds_of(field.metadata) == ([], []):
            continue
        (lower,), (upper,) = bounds_of(found[0])
        beyond = [lower - 1, upper + 1, float("inf"), float("nan"), 10**400, True]
        for value in beyond:
            with pytest.raises(ValidationError) as caught:
                model.model_validate({name: value})
            assert any(e["loc"][0] == name for e in caught.value.errors()), value


def test_contradictions_are_found_with_other_mistakes_and_from_either_side():
    class Pair(Options):
        orders = (Order("low", "high", "nothing is between", strict=True),)
        high: float = 10.0
        low: float = 5.0
        name: str = ""

    def problems(**given):
        with pytest.raises(ValidationError) as caught:
            Pair(**given)
        return [e["msg"] for e in caught.value.errors() if e["type"] == "contradiction"]

    above = "low ({}) is above high ({}): nothing is between"
    assert problems(low=20, name=5) == [above.format(20, 10)]
    assert problems(high=1) == [above.format(5, 1)]
    assert problems(low=4, high=3) == [above.format(4, 3)]
    assert problems(low=4, high=4) == [
        "low (4) is equal to high (4): nothing is between"
    ]
    assert Pair(low=1, high=2).low == 1


def sample(annotation, metadata, rng):
    """Return a value for an option: any, at a bound, between, or absurd."""
    if rng.random() < 0.1:
        return rng.choice(ABSURD)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return options_for(annotation, rng)
    if annotation in (int, float):
        lower, upper = bounds_of(metadata)
        low, high = max(lower), min(upper)
        value = rng.choice(
            [low, high, rng.uniform(low, high), low + (high - low) * rng.random() ** 9]
        )
        return round(value) if annotation is int else value
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return sample(arguments[0], [*metadata, *arguments[1:]], rng)
    if origin in (Union, types.UnionType):
        return sample(rng.choice(arguments), metadata, rng)
    if origin is Literal:
        return rng.choice(arguments)
    if origin is list:
        return [sample(arguments[0], [], rng) for _ in range(rng.randint(1, 3))]
    if origin is tuple:
        return [sample(part, [], rng) for part in arguments]
    if origin is dict:
        return {}
    if annotation is bool:
        return rng.random() < 0.5
    if annotation is str:
        return rng.choice(["a", "b c", "x.csv", "tcp://127.0.0.1:5999", "true"])
    return None


def options_for(model, rng):
    fields = model.model_fields
    share = rng.choice([0.1, 0.3, 1.0])
    return {
        name: sample(field.annotation, field.metadata, rng)
        for name, field in fields.items()
        if field.is_required() or rng.random() < share
    }


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_what_a_check_accepts_can_be_built(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plugin = REGISTRY.get(kind, name)
    rng = random.Random(f"{kind} {name}")
    bundle = load_bundle("bengalese-finch", Path())
    front_end = bundle.manifest.front_end
    accepted = 0
    for _ in range(150):
        rate = rng.choice([1000, 22_050, 32_000, 250_000])
        context = BuildContext(
            clock=SystemClock(), run="r", base=tmp_path, stream="lane"
        )
        if kind == "model":
            context = BuildContext(
                clock=SystemClock(),
                run="r",
                bundle=bundle,
                info=StreamInfo("s", front_end.sample_rate, 1),
                n_bins=front_end.n_bins,
                hop_length=front_end.hop_length,
                frame_length=front_end.frame_length,
            )
        elif kind in ("features", "detector", "gate"):
            context = BuildContext(
                clock=SystemClock(),
                run="r",
                bundle=bundle if name == "network" else None,
                info=StreamInfo("s", rate, 1),
            )
        try:
            options = plugin.options.model_validate(options_for(plugin.options, rng))
        except ValidationError:
            continue
        if list(plugin.check(options, context)):
            continue
        plugin.resources(options)
        list(plugin.reads(options, context))
        list(plugin.writes(options, context))
        plugin.build(options, context)
        accepted += 1
    rare = {
        "audio_text",
        "daily",
        "explain",
        "file",
        "folder",
        "latent",
        "playback",
        "recording",
        "trigger",
        "microphone",
        "mqtt",
        "onnx",
        "webhook",
    }
    assert accepted or name in rare | {"speaker", "zmq", "prometheus"}
