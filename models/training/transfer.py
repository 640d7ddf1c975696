"""Training that starts from a bundle: another bird, a few seconds of song.

A bundle keeps its weights in its graphs. They are read back by asking where the export
puts them: a network whose parameters are all different numbers is written as a graph,
and the numbers found there say which value of the bundle's graph belongs where.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from pydantic import ValidationError
from torch import nn

from neurovocal.engine.contracts.bundle import (
    MANIFEST_NAME,
    Bundle,
    load_bundle,
    sha256,
)
from neurovocal.engine.contracts.errors import ConfigError
from neurovocal.engine.contracts.types import Float32
from neurovocal.models.classifier.graph import classifier_graph
from neurovocal.models.classifier.network import Classifier
from neurovocal.models.data.frames import SCALING_FILE
from neurovocal.models.rnn_rbm.graph import scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import (
    ClassifierConfig,
    FrontEndConfig,
    RnnRbmConfig,
    TrainConfig,
)
from neurovocal.plugins.storage.npz import read_npz

# Smaller numbers stand for constants of the export (0, 0.5, 1), not for parameters.
_FIRST_MARK = 2
_SHAPE = ("architecture", "n_hidden", "n_layers", "kernel_length")


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The bundle that a training starts from."""

    bundle: Bundle

    @classmethod
    def load(cls, name: str) -> "Origin":
        """A folder, or the name of a bundle that ships; every file is verified."""
        return cls(load_bundle(name))

    @property
    def digest(self) -> str:
        """Of the manifest, which holds those of all other files."""
        return sha256(self.bundle.folder / MANIFEST_NAME)

    @property
    def record(self) -> dict[str, str]:
        """What the new bundle says of its origin."""
        return {"name": self.bundle.manifest.name, "manifest": self.digest}

    def recipe(self, config: TrainConfig) -> TrainConfig:
        """The recipe with this bundle's front end and the sizes of its networks.

        A front end that the recipe names itself stays. An RNN-RBM is trained by
        contrastive divergence alone, unless the recipe names its phases: the others
        would begin with W = 0.

        Raises
        ------
        ConfigError
            The bundle does not say of what size its networks are.
        """
        changes: dict[str, Any] = {}
        if self._keeps_front_end(config):
            changes["front_end"] = self._front_end()
        manifest = self.bundle.manifest
        if config.classifier is not None and manifest.classifier is not None:
            changes["classifier"] = self._classifier(config.classifier)
        if config.rnn_rbm is not None and manifest.rnn_rbm is not None:
            changes["rnn_rbm"] = self._rnn_rbm(config.rnn_rbm)
        return config.model_copy(update=changes)

    def scaling(self, config: TrainConfig) -> tuple[Float32, Float32] | None:
        """Offset and gain of the bundle's front end; None where they are to be fitted.

        `config` is the recipe before `recipe` changed it.
        """
        if not self._keeps_front_end(config):
            return None
        arrays = read_npz(
            self.bundle.path(SCALING_FILE), "scaling file", "offset", "gain"
        )
        return arrays["offset"], arrays["gain"]

    def initialize_classifier(self, model: Classifier, names: list[str]) -> None:
        """Start `model`, with outputs `names`, from the bundle's classifier.

        Outputs that the bundle has, too, start from its own; others keep their
        random start.

        Raises
        ------
        ConfigError
            The shapes do not fit.
        """
        spec = self.bundle.manifest.classifier
        if spec is None:
            return
        old = copy.deepcopy(model)
        old.readout = nn.Linear(model.readout.in_features, len(spec.units))
        self._fill(old, classifier_graph, spec.file)
        with torch.no_grad():
            model.encoder.load_state_dict(old.encoder.state_dict())
            for row, name in enumerate(names):
                known = spec.silence if row == 0 else name
                if known in spec.units:
                    source = spec.units.index(known)
                    model.readout.weight[row] = old.readout.weight[source]
                    model.readout.bias[row] = old.readout.bias[source]

    def initialize_rnn_rbm(self, model: RnnRbm) -> None:
        """Start `model` from the bundle's RNN-RBM.

        Raises
        ------
        ConfigError
            The shapes do not fit.
        """
        spec = self.bundle.manifest.rnn_rbm
        if spec is None:
            return
        values = self._fill(model, scoring_graph, spec.file)
        if model.gaussian:
            model.log_sigma.data = torch.from_numpy(np.log(values["sigma"]))

    def _keeps_front_end(self, config: TrainConfig) -> bool:
        return "front_end" not in config.model_fields_set

    def _front_end(self) -> FrontEndConfig:
        front_end = self.bundle.manifest.front_end
        bare = {k: v for k, v in front_end.options.items() if k != "scaling"}
        return FrontEndConfig(
            plugin=front_end.plugin, sample_rate=front_end.sample_rate, options=bare
        )

    def _classifier(self, config: ClassifierConfig) -> ClassifierConfig:
        recipe = self.bundle.manifest.training.get("recipe") or {}
        try:
            shape = {name: recipe["classifier"][name] for name in _SHAPE}
            changed = {**config.model_dump(), **shape}
            return ClassifierConfig.model_validate(changed)
        except (KeyError, TypeError, ValidationError) as error:
            raise ConfigError(
                f"bundle '{self.bundle.folder}' does not say how large its classifier "
                "is (training.recipe.classifier): train without --from"
            ) from error

    def _rnn_rbm(self, config: RnnRbmConfig) -> RnnRbmConfig:
        spec = self.bundle.manifest.rnn_rbm
        assert spec is not None
        changes: dict[str, Any] = {
            "visible": spec.visible,
            "gates": spec.gates,
            "n_layers": spec.n_layers,
            "hidden_scalar": spec.n_hidden / spec.n_visible,
            "recurrent_scalar": spec.n_recurrent / spec.n_visible,
        }
        if "phases" not in config.model_fields_set:
            updates = sum(phase.updates for phase in config.phases)
            last = config.phases[-1].model_copy(update={"updates": updates})
            changes["phases"] = [last]
        return config.model_copy(update=changes)

    def _fill(
        self, model: nn.Module, export: Callable[[Any], Any], file: str
    ) -> dict[str, Any]:
        """Copy a graph's values into `model`; returns them by their names there."""
        marked, mark = copy.deepcopy(model), _FIRST_MARK
        for name, parameter in marked.named_parameters():
            n = 0 if name == "log_sigma" else parameter.numel()
            numbers = torch.arange(mark, mark + n, dtype=torch.float32)
            parameter.data = (
                numbers.view_as(parameter) if n else torch.zeros_like(parameter)
            )
            mark += n
        places = _constants(export(marked))
        values = _constants(onnx.load(self.bundle.path(file)))
        flat = np.full(mark, np.nan, np.float32)
        for name, numbers in places.items():
            found = values.get(name)
            if found is None or found.shape != numbers.shape:
                has = "none" if found is None else str(list(found.shape))
                raise ConfigError(
                    f"{self.bundle.path(file)}: '{name}' has shape {has}, the recipe "
                    f"makes {list(numbers.shape)}: leave front_end and sizes to the "
                    "bundle, or train without --from"
                )
            ours = numbers >= _FIRST_MARK
            flat[numbers[ours].astype(np.int64)] = found[ours]
        mark = _FIRST_MARK
        for name, parameter in model.named_parameters():
            if name != "log_sigma":
                part = torch.from_numpy(flat[mark : mark + parameter.numel()])
                parameter.data.copy_(part.view_as(parameter))
                mark += parameter.numel()
        return values


def _constants(graph: Any) -> dict[str, Any]:
    """Constants of single precision by name."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    return {name: a for name, a in arrays.items() if a.dtype == np.float32}


def load_origin(name: str | Path | None) -> Origin | None:
    """The bundle that `--from` names, if it was given."""
    return None if name is None else Origin.load(str(name))
