"""Training from the weights of a bundle, for instance for another bird.

The weights of a bundle are constants of its graphs. To read them, a network whose
parameters are distinct numbers is exported; the positions of these numbers in its
graph are the positions of the parameters in the bundle's graph.
"""

import copy
from collections.abc import Callable, Sequence
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
from neurovocal.models.data.datasets import AnnotatedRecording
from neurovocal.models.data.frames import SCALING_FILE
from neurovocal.models.rnn_rbm.graph import scoring_graph
from neurovocal.models.rnn_rbm.network import RnnRbm
from neurovocal.models.toolkit.recipe import (
    ClassifierConfig,
    FrontEndConfig,
    RnnRbmConfig,
    TrainConfig,
)
from neurovocal.plugins.models.onnx.session import graph_content
from neurovocal.plugins.storage.npz import read_npz

# Smaller numbers are constants of the export (0, 0.5, 1), not parameters.
_FIRST_MARK = 2
_SHAPE = ("architecture", "n_hidden", "n_layers", "kernel_length")


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Bundle that a training starts from."""

    bundle: Bundle

    @classmethod
    def load(cls, name: str) -> "Origin":
        """Load and verify a bundle, by folder or by name of a built-in bundle."""
        bundle = load_bundle(name)
        _ = bundle.manifest.front_end  # a detector alone is told to be one
        return cls(bundle)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds those of all other files."""
        return sha256(self.bundle.folder / MANIFEST_NAME)

    @property
    def record(self) -> dict[str, str]:
        """Manifest entry ``training.from`` of the new bundle."""
        return {"name": self.bundle.manifest.name, "manifest": self.digest}

    @property
    def n_bins(self) -> int:
        """Bins of the frames that the weights are for."""
        return self.bundle.manifest.front_end.n_bins

    def notes(
        self, config: TrainConfig, recordings: Sequence[AnnotatedRecording]
    ) -> list[str]:
        """Return a sentence for each way in which the bundle differs from the data."""
        manifest = self.bundle.manifest
        front_end, spec = manifest.front_end, manifest.classifier
        notes = []
        if not self._uses_front_end(config):
            notes.append(
                f"the recipe has a front end of its own, the weights of "
                f"'{manifest.name}' are for {front_end.plugin} at "
                f"{front_end.sample_rate} Hz with a hop of {front_end.hop_length} "
                "samples: if they differ, the weights help little"
            )
        if spec is not None and config.classifier is not None:
            labels = {a.unit for r in recordings for a in r.annotations}
            known = sorted(labels & set(spec.units))
            shown = f" ({', '.join(known)})" if known else ""
            notes.append(
                f"{len(known)} of the {len(labels)} labels are units of "
                f"'{manifest.name}'{shown}: the others begin untrained"
            )
        return notes

    def recipe(self, config: TrainConfig) -> TrainConfig:
        """Return the recipe with this bundle's front end and network sizes.

        A front end in the recipe takes precedence. The RNN-RBM is trained with the
        last phase only, unless the recipe lists phases: the other phases would set W
        to 0.

        Raises
        ------
        ConfigError
            The manifest does not list the sizes of the classifier.
        """
        changes: dict[str, Any] = {}
        if self._uses_front_end(config):
            changes["front_end"] = self._front_end()
        manifest = self.bundle.manifest
        if config.classifier is not None and manifest.classifier is not None:
            changes["classifier"] = self._classifier(config.classifier)
        if config.rnn_rbm is not None and manifest.rnn_rbm is not None:
            changes["rnn_rbm"] = self._rnn_rbm(config.rnn_rbm)
        return config.model_copy(update=changes)

    def scaling(self, config: TrainConfig) -> tuple[Float32, Float32] | None:
        """Return offset and gain of the bundle, or None if they are to be fitted.

        Parameters
        ----------
        config : TrainConfig
            Recipe before the changes of `recipe`.
        """
        if not self._uses_front_end(config):
            return None
        arrays = read_npz(
            self.bundle.path(SCALING_FILE), "scaling file", "offset", "gain"
        )
        return arrays["offset"], arrays["gain"]

    def initialize_classifier(self, model: Classifier, names: list[str]) -> None:
        """Copy the weights of the bundle's classifier to `model`.

        Parameters
        ----------
        model : Classifier
            Network with random weights.
        names : list of str
            Names of its outputs, silence first. Outputs that the bundle does not have
            keep their random weights.

        Raises
        ------
        ConfigError
            The shapes do not match.
        """
        spec = self.bundle.manifest.classifier
        if spec is None:
            return
        original = copy.deepcopy(model)
        original.readout = nn.Linear(model.readout.in_features, len(spec.units))
        self._copy_weights(original, classifier_graph, spec.file)
        with torch.no_grad():
            model.encoder.load_state_dict(original.encoder.state_dict())
            for row, name in enumerate(names):
                unit = spec.silence if row == 0 else name
                if unit in spec.units:
                    source = spec.units.index(unit)
                    model.readout.weight[row] = original.readout.weight[source]
                    model.readout.bias[row] = original.readout.bias[source]

    def initialize_rnn_rbm(self, model: RnnRbm) -> None:
        """Copy the weights of the bundle's RNN-RBM to `model`.

        Raises
        ------
        ConfigError
            The shapes do not match.
        """
        spec = self.bundle.manifest.rnn_rbm
        if spec is None:
            return
        values = self._copy_weights(model, scoring_graph, spec.file)
        if model.gaussian:
            model.log_sigma.data = torch.from_numpy(np.log(values["sigma"]))

    def _uses_front_end(self, config: TrainConfig) -> bool:
        """Return True if the recipe does not have a front end of its own."""
        return "front_end" not in config.model_fields_set

    def _front_end(self) -> FrontEndConfig:
        """Return the bundle's front end without its scaling."""
        front_end = self.bundle.manifest.front_end
        options = {k: v for k, v in front_end.options.items() if k != "scaling"}
        return FrontEndConfig(
            plugin=front_end.plugin, sample_rate=front_end.sample_rate, options=options
        )

    def _classifier(self, config: ClassifierConfig) -> ClassifierConfig:
        """Return the recipe's classifier with the sizes of the bundle's."""
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
        """Return the recipe's RNN-RBM with the sizes of the bundle's."""
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

    def _copy_weights(
        self, model: nn.Module, export: Callable[[Any], Any], file: str
    ) -> dict[str, Any]:
        """Copy the values of a graph to `model`.

        Parameters
        ----------
        model : Module
            Network of the shapes of the graph.
        export : callable
            Builds the graph of a network.
        file : str
            File of the bundle's graph.

        Returns
        -------
        dict
            Constants of the bundle's graph by name.
        """
        marked, mark = copy.deepcopy(model), _FIRST_MARK
        for name, parameter in marked.named_parameters():
            n = 0 if name == "log_sigma" else parameter.numel()
            numbers = torch.arange(mark, mark + n, dtype=torch.float32)
            parameter.data = (
                numbers.view_as(parameter) if n else torch.zeros_like(parameter)
            )
            mark += n
        positions = _constants(export(marked))
        path = self.bundle.path(file)
        content = graph_content(path, f"'{path}'")
        values = _constants(onnx.load_model_from_string(content))
        flat = np.full(mark, np.nan, np.float32)
        for name, numbers in positions.items():
            found = values.get(name)
            if found is None or found.shape != numbers.shape:
                has = "none" if found is None else str(list(found.shape))
                raise ConfigError(
                    f"{path}: '{name}' has shape {has}, the recipe "
                    f"makes {list(numbers.shape)}: leave front_end and sizes to the "
                    "bundle, or train without --from"
                )
            is_parameter = numbers >= _FIRST_MARK
            flat[numbers[is_parameter].astype(np.int64)] = found[is_parameter]
        mark = _FIRST_MARK
        for name, parameter in model.named_parameters():
            if name != "log_sigma":
                part = torch.from_numpy(flat[mark : mark + parameter.numel()])
                parameter.data.copy_(part.view_as(parameter))
                mark += parameter.numel()
        return values


def _constants(graph: Any) -> dict[str, Any]:
    """Return the float32 constants of a graph by name."""
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    return {name: a for name, a in arrays.items() if a.dtype == np.float32}


def load_origin(name: str | Path | None) -> Origin | None:
    """Load the bundle that ``--from`` names; None without it."""
    return None if name is None else Origin.load(str(name))
