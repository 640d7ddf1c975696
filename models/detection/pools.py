"""Scenes that a detector network is trained on, drawn once and kept in files."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np

from neurovocal.engine.contracts.types import Float32
from neurovocal.models.data.soundness import Sound
from neurovocal.models.detection.datasets import CallRecording, CallSet, DetectorData
from neurovocal.models.detection.recipe import DetectorRecipe
from neurovocal.models.detection.recorded import draw_recorded_scene
from neurovocal.models.detection.scenes import Scene, draw_scene
from neurovocal.models.detection.training import ScenePool
from neurovocal.models.toolkit.files import write_npz
from neurovocal.models.training.workspace import SCENES
from neurovocal.plugins.storage.npz import read_npz

SYNTHETIC = "synthetic"
_AT_ONCE = 50  # scenes of a file

Watch = Callable[[float], None]


@dataclass(frozen=True, slots=True, eq=False)
class SceneFiles:
    """Draws scenes, or reads those that were drawn before from the same sounds.

    Parameters
    ----------
    folder : Path
        Where they are kept; trainings that leave out other datasets may share it.
    recipe : DetectorRecipe
        Seed, numbers and length.
    sounds : mapping of str to Sound
        Of the recordings by their file.
    backgrounds : sequence of float32[n_samples]
        What is laid under calls.
    """

    folder: Path
    recipe: DetectorRecipe
    sounds: Mapping[str, Sound]
    backgrounds: Sequence[Float32]

    def pools(self, data: DetectorData, watch: Watch) -> list[ScenePool]:
        """Return the scenes of all datasets; `watch` is told the completed share."""
        config = self.recipe.scenes
        sets = data.sets if config.recorded else ()
        recorded = config.share_recorded if sets else 0.0
        under = [
            [each.file, self.sounds[each.file].digest] for each in data.backgrounds
        ]
        done, total = 0, config.synthetic + config.recorded * len(sets)

        def count() -> None:
            nonlocal done
            done += 1
            watch(done / total)

        pools = [
            self._pool(
                SYNTHETIC, config.synthetic, 1 - recorded, under, self._synthetic, count
            )
        ]
        for of in sets:
            content = [under, [self._content(each) for each in of.train]]
            draw = self._from(of)
            share = recorded / len(sets)
            pools.append(
                self._pool(of.name, config.recorded, share, content, draw, count)
            )
        return pools

    def _synthetic(self, number: int) -> Scene:
        rng = np.random.default_rng([self.recipe.seed, number])
        return draw_scene(rng, self.recipe.scenes.rows, self.backgrounds)

    def _from(self, of: CallSet) -> Callable[[int], Scene]:
        """Return what draws a part of a dataset by its number."""

        def draw(number: int) -> Scene:
            seed = [self.recipe.seed, crc32(of.name.encode()), number]
            rng = np.random.default_rng(seed)
            chosen = of.train[int(rng.integers(len(of.train)))]
            rows = self.recipe.scenes.rows
            return draw_recorded_scene(rng, rows, chosen, self.backgrounds)

        return draw

    def _content(self, recording: CallRecording) -> list[object]:
        digest = self.sounds[recording.source.file].digest
        return [recording.source.file, digest, recording.spans, recording.judged]

    def _pool(
        self,
        name: str,
        total: int,
        share: float,
        content: object,
        draw: Callable[[int], Scene],
        count: Callable[[], None],
    ) -> ScenePool:
        """Return scenes of one kind; `content` is what they depend on."""
        settings = [self.recipe.seed, self.recipe.scenes.rows, content]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        parts: dict[str, list[Float32]] = {"levels": [], "scores": [], "target": []}
        for first in range(0, total, _AT_ONCE):
            numbers = range(first, min(first + _AT_ONCE, total))
            file = f"{SCENES}{name}-{digest}-{first:05d}-{len(numbers)}.npz"
            path = self.folder / file
            if not path.is_file():
                scenes = []
                for number in numbers:
                    scenes.append(draw(number))
                    count()
                drawn = {
                    key: np.stack([getattr(scene, key) for scene in scenes])
                    for key in parts
                }
                write_npz(path, drawn, compressed=False)
            for key, values in read_npz(path, "scenes", *parts).items():
                parts[key].append(values)
        arrays = {key: np.concatenate(values) for key, values in parts.items()}
        return ScenePool(
            arrays["levels"].astype(np.float16),
            arrays["scores"].astype(np.float16),
            arrays["target"].astype(np.int8),
            share,
        )
