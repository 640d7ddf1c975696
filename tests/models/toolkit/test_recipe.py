"""Recipes: all mistakes at once, with file and line, those of plugins' options too."""

from pathlib import Path

import pytest

from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.models.toolkit.recipe import TrainConfig, adapted, load_config


def problems(path: Path, text: str) -> list[str]:
    """Return the mistakes in a recipe, with ``r.yaml`` for its path."""
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return [one.replace(str(path), "r.yaml") for one in caught.value.problems]


def test_options_of_plugins_are_checked_with_the_rest_of_a_recipe(
    tmp_path: Path,
) -> None:
    text = """front_end:
  options:
    hop_lenght: 128
    scale: logg
detector:
  options: {min_duration_ms: -4}
classifier: {hidden: 3}
"""
    assert sorted(problems(tmp_path / "r.yaml", text)) == [
        "r.yaml:3: front_end.options.hop_lenght: unknown option (did you mean "
        "'hop_length'?)",
        "r.yaml:4: front_end.options.scale: must be 'linear', 'log' or 'mel' (got "
        "'logg')",
        "r.yaml:6: detector.options.min_duration_ms: must be at least 0 and at most "
        "60000 (got -4)",
        "r.yaml:7: classifier.hidden: unknown option (did you mean 'n_hidden'?)",
    ]


def test_a_plugin_that_is_not_installed_is_named_and_no_file_is_run(
    tmp_path: Path,
) -> None:
    (problem,) = problems(tmp_path / "r.yaml", "front_end: {plugin: wavelet}\n")
    assert problem.startswith(
        "r.yaml:1: front_end.plugin: unknown features plugin 'wavelet'"
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('it was run')\n")
    text = f"front_end: {{plugin: '{tmp_path}/evil.py:plugin'}}\n"
    (problem,) = problems(tmp_path / "r.yaml", text)
    assert "is not the name of an installed plugin" in problem


def test_a_recipe_without_mistakes_is_returned(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("front_end: {options: {hop_length: 64}}\n")
    assert load_config(path).front_end.options == {"hop_length": 64}


def test_options_of_a_classifier_need_one_in_the_recipe() -> None:
    without = TrainConfig(classifier=None)
    with pytest.raises(ConfigError) as caught:
        adapted(without, {}, quick=True, unknown_cost=3.0)
    assert caught.value.problems == [
        "--quick and --unknown-cost: the recipe trains no classifier (classifier: "
        "null): leave it out, or take another recipe"
    ]
    assert adapted(without, {"seed": 3}, test=True).classifier is None
    quick = adapted(TrainConfig(), {}, quick=True, unknown_cost=3.0).classifier
    assert quick is not None
    assert (quick.updates, quick.unknown_cost) == (400, 3.0)
