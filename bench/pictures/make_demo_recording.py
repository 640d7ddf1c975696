"""Make the shipped recording: three songs of the held-out day, end to end.

``python bench/pictures/make_demo_recording.py ../shared/data/finch_gy6or6`` writes
``configs/recordings/bengalese-finch.flac`` and its annotations. The songs are of the
day on which no model and no threshold was chosen.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

SONGS = ("0814.5830", "0821.5878", "0826.5905")
FOLDER = Path(__file__).resolve().parents[2] / "configs" / "recordings"


def main(dataset: Path) -> None:
    """Join the songs and shift their annotations."""
    with (dataset / "annotations.csv").open(encoding="utf-8") as stream:
        annotations = list(csv.DictReader(stream))
    parts, rows, position, rate = [], [], 0, 0
    for song in SONGS:
        name = f"audio/gy6or6_baseline_250312_{song}.flac"
        samples, rate = soundfile.read(dataset / name, dtype="int16")
        for row in annotations:
            if row["file"] == name:
                times = [
                    f"{float(row[key]) + position / rate:.6f}"
                    for key in ("onset_s", "offset_s")
                ]
                rows.append(["bengalese-finch.flac", *times, row["label"]])
        parts.append(samples)
        position += len(samples)
    FOLDER.mkdir(parents=True, exist_ok=True)
    soundfile.write(FOLDER / "bengalese-finch.flac", np.concatenate(parts), rate)
    with (FOLDER / "annotations.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["file", "onset_s", "offset_s", "label"])
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
