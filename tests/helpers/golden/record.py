"""Records what users of the program see into texts, and updates what is expected.

    python tests/helpers/golden/record.py --out FOLDER [--exact] [--only NAME...]
    python tests/helpers/golden/record.py --update [--only NAME...]

Two exact recordings of one machine can be compared by `diff -r`: they hold full
precision and checksums. What is expected of every machine lies in
`tests/system/golden/expected/`; `tests/system/test_golden.py` compares with it.
"""

import argparse
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from golden.session import ROOT, Entry, Session
from golden.subjects import commands, errors, models, runs, wire

EXPECTED = ROOT / "tests" / "system" / "golden" / "expected"
SUBJECTS: dict[str, Callable[[Session], Iterator[Entry]]] = {
    "commands": commands.record,
    "tables": commands.record_tables,
    "errors": errors.record,
    "runs": runs.record,
    "wire": wire.record,
    "models": models.record,
}


def recorded(session: Session, subject: str) -> dict[str, str]:
    """Record a subject: a text for each file, by its name without `.txt`."""
    sections: dict[str, list[str]] = defaultdict(list)
    for entry in SUBJECTS[subject](session):
        sections[entry.topic].append(f"## {entry.name}\n{entry.text.rstrip()}\n")
    return {topic: "\n".join(texts) for topic, texts in sections.items()}


def write(folder: Path, subject: str, texts: dict[str, str]) -> None:
    """Write the texts of a subject, in place of those that are there."""
    shutil.rmtree(folder / subject, ignore_errors=True)
    for topic, text in texts.items():
        path = folder / f"{topic}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _record_all(session: Session, given: argparse.Namespace, folder: Path) -> None:
    """Record the subjects that were asked for, and say how long each took."""
    for subject in given.only:
        if subject in given.leave_out:
            continue
        start_s = time.monotonic()
        print(f"{subject} ...", end=" ", file=sys.stderr, flush=True)
        texts = recorded(session, subject)
        write(folder, subject, texts)
        size_kb = sum(len(text.encode()) for text in texts.values()) / 1000
        took_s = time.monotonic() - start_s
        print(f"{took_s:.0f} s, {size_kb:.0f} kB", file=sys.stderr)


def main() -> None:
    """Read the arguments and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, help="folder for the texts")
    target.add_argument(
        "--update", action="store_true", help="replace what is expected"
    )
    parser.add_argument("--exact", action="store_true", help="full precision")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--leave-out", nargs="+", choices=SUBJECTS, default=[])
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument(
        "--preloaded", action="store_true", help="load the program only once: faster"
    )
    parser.add_argument("--keep", type=Path, help="keep the files of the commands here")
    parser.add_argument("--slowest", type=int, default=0, help="name so many commands")
    given = parser.parse_args()
    if given.update and given.exact:
        parser.error("what is expected holds on every machine: leave out --exact")
    folder = EXPECTED if given.update else given.out
    with TemporaryDirectory(prefix="golden-") as temporary:
        work = given.keep or Path(temporary)
        session = Session(
            work, exact=given.exact, jobs=given.jobs, preloaded=given.preloaded
        )
        try:
            _record_all(session, given, folder)
        finally:
            session.close()
        slowest = sorted(session.took_s.items(), key=lambda item: -item[1])
        for name, command_s in slowest[: given.slowest]:
            print(f"{command_s:7.1f} s  {name}", file=sys.stderr)


if __name__ == "__main__":
    main()
