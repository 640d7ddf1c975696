"""Damaged input for every parser: ``make fuzz``.

    .venv/bin/python bench/reliability/fuzz.py --inputs 100000

Valid input of each kind is damaged by bit flips, cuts, repeats, insertions of extreme
bytes, and splices with other valid input (seeded). A parser may accept the result, or
refuse it with an error of this project. Anything else is a finding: another exception,
more than TIMEOUT_S seconds, or more memory than LIMIT_GB. The parsers run in a process
of their own, whose end is a finding, too.
"""

import argparse
import json
import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

import fuzz_parsers
import fuzz_texts
import numpy as np
from fuzz_parsers import Parser
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from neurovocal.engine.contracts.errors import NeurovocalError

TIMEOUT_S = 10
# Until the parser's modules are loaded, on a busy machine, too.
START_S = 300
LIMIT_GB = 6
# Numbers that lengths and counts go wrong with, and pieces that parsers look for.
TOKENS = [
    *(bytes([b]) for b in (0, 1, 0x7F, 0x80, 0xFF)),
    *(n.to_bytes(4, "little") for n in (0, 2**31 - 1, 2**31, 2**32 - 1)),
    *(n.to_bytes(8, "little") for n in (2**63 - 1, 2**64 - 1)),
    *(b"-1", b"1e999", b"NaN", b"null", b"true", b"{}", b"[]", b'"', b"\\u0000"),
    *(b"&a [*a]", b"${X}", b"!!python/object", b"\n", b",", b":", b"../", b"\r"),
    *(b"[" * 2000, b"{" * 2000, b"9" * 400, b"\xf0\x9f\x90\xa6"),
]


def parsers() -> dict[str, Parser]:
    """Return all parsers by name."""
    return {**fuzz_parsers.parsers(), **fuzz_texts.parsers()}


class HangError(BaseException):
    """Timeout of a parser; a BaseException, so that no parser catches it."""


def damaged(good: list[bytes], rng: np.random.Generator) -> bytes:
    """Return a valid input with one to six kinds of damage."""
    data = bytearray(good[rng.integers(len(good))])
    for _ in range(int(rng.integers(1, 7))):
        at = int(rng.integers(len(data) + 1))
        match int(rng.integers(7)):
            case 0 if data:
                data[at % len(data)] ^= 1 << int(rng.integers(8))
            case 1 if data:
                data[at % len(data)] = int(rng.integers(256))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + int(rng.integers(1, 64))]
            case 4:
                data[at:at] = data[at : at + int(rng.integers(1, 256))]
            case 5:
                token = TOKENS[rng.integers(len(TOKENS))]
                data[at : at + len(token) * int(rng.integers(2))] = token
            case _:
                other = good[rng.integers(len(good))]
                data[at:] = other[int(rng.integers(len(other) + 1)) :]
    return bytes(data)


def feed(parser: Parser, data: bytes) -> str | None:
    """Give one input to a parser; return a finding or None."""
    signal.alarm(TIMEOUT_S)
    try:
        parser.take(data)
    except NeurovocalError:
        return None
    except HangError:
        return f"no answer within {TIMEOUT_S} s"
    except MemoryError:
        return f"more than {LIMIT_GB} GB"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        file = Path(place.filename)
        return f"{type(error).__name__} in {file.parent.name}/{file.name}:{place.name}"
    finally:
        signal.alarm(0)
    return None


def work(name: str, number: int, seed: int, out: "multiprocessing.Queue") -> None:
    """Run one parser in a process of its own."""

    def ring(signal_number: int, frame: FrameType | None) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, ring)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = LIMIT_GB * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    parser = parsers()[name]
    rng = np.random.default_rng([seed, *name.encode()])
    slowest_s = 0.0
    for count in range(number):
        data = damaged(parser.good, rng)
        out.put(("next", data if count % 50 == 0 else None))
        began = time.perf_counter()
        finding = feed(parser, data)
        slowest_s = max(slowest_s, time.perf_counter() - began)
        if finding is not None:
            out.put(("finding", (finding, data)))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    out.put(("end", (slowest_s, peak_mb)))


def fuzz(
    name: str, number: int, seed: int, progress: Progress, folder: Path
) -> dict[str, object]:
    """Give `number` inputs to one parser and return the findings."""
    task = progress.add_task(name, total=number)
    context = multiprocessing.get_context("spawn")
    out: multiprocessing.Queue = context.Queue()
    process = context.Process(target=work, args=(name, number, seed, out))
    process.start()
    findings: Counter[str] = Counter()
    fed, slowest_s, peak_mb = 0, 0.0, 0
    while True:
        try:
            what, value = out.get(timeout=3 * TIMEOUT_S if fed else START_S)
        except Exception:
            findings[f"the process died ({process.exitcode})"] += 1
            break
        if what == "next":
            fed += 1
            progress.advance(task)
        elif what == "finding":
            if not findings[value[0]]:
                path = folder / f"{name.replace(' ', '-')}-{len(findings)}.bin"
                path.write_bytes(value[1])
            findings[value[0]] += 1
        else:
            slowest_s, peak_mb = value
            break
    process.join(TIMEOUT_S)
    process.kill()
    return {
        "parser": name,
        "inputs": fed,
        "findings": dict(findings),
        "slowest_ms": round(slowest_s * 1e3, 1),
        "peak_mb": peak_mb,
    }


def main() -> int:
    """Fuzz all parsers; 0 without a finding."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="for all parsers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=sorted(parsers()))
    parser.add_argument("--keep", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    names = arguments.only or sorted(parsers())
    weights = {name: parsers()[name].weight for name in names}
    rows = []
    with Progress(console=Console(stderr=True)) as progress:
        for name in names:
            share = weights[name] / sum(weights.values())
            number = max(1, round(arguments.inputs * share))
            rows.append(fuzz(name, number, arguments.seed, progress, arguments.keep))
    if arguments.json:
        print(json.dumps(rows))
    else:
        show(rows)
    return 2 if any(row["findings"] for row in rows) else 0


def show(rows: list[dict[str, object]]) -> None:
    """Print the table for people."""
    table = Table("parser", "inputs", "findings", "slowest, ms", "peak, MB")
    for row in rows:
        found = row["findings"]
        assert isinstance(found, dict)
        text = "\n".join(f"{n} x {what}" for what, n in found.items()) or "none"
        cells = (row["parser"], row["inputs"], text, row["slowest_ms"], row["peak_mb"])
        table.add_row(*map(str, cells))
    table.caption = f"{sum(int(str(row['inputs'])) for row in rows)} inputs"
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
