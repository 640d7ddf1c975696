"""Bad configurations, and bad values given by `--set`."""

from collections.abc import Iterator

from golden.session import Case

_SOURCE = "source: {plugin: file, options: {path: INPUTS/short.wav}}\n"
_SINKS = "sinks: [{plugin: jsonl, options: {path: events.jsonl}}]\n"
_BUNDLE = "bundle: bengalese-finch\n"
_HEAD = f"version: 1\n{_SOURCE}"
_BASE = f"{_HEAD}{_SINKS}"
_MODEL = f"{_HEAD}{_BUNDLE}{_SINKS}"

_ENVELOPES = {
    "unknown keys": f"{_BASE}statoin: x\ntiles: 3\nsinkz: []\n",
    "wrong types": f"{_BASE}tile: many\nstop_timeout_s: -1\nstation: [1]\n",
    "version": f"version: 2\n{_SOURCE}{_SINKS}",
    "missing keys": "station: x\n",
    "no source and no plugin": "version: 1\nsource: {options: {}}\nsinks: [{}]\n",
    "list": "- version: 1\n",
    "empty": "",
    "word": "demo\n",
    "not YAML": "version: 1\n  source: {plugin: file\n",
    "tabulator": "version: 1\nsource:\n\tplugin: file\n",
    "duplicate keys": f"{_BASE}tile: 4\ntile: 8\n",
    "duplicate inner keys": f"{_HEAD}{_SINKS}detector: {{plugin: energy, plugin: x}}\n",
    "aliases": f"{_BASE}a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "deep": f"{_BASE}detector: {'[' * 200}{']' * 200}\n",
    "tag": f"{_BASE}station: !!python/object:os.system x\n",
    "environment": f"{_BASE}station: '${{NO_SUCH_VARIABLE_OF_MINE}}'\n",
    "several mistakes": (
        "version: 1\nstation: x\ntile: 0\nsource: {plugin: fiel}\n"
        "detector: {plugin: energy, options: {low_hx: 500, on_db: loud}}\n"
        "sinks:\n  - {plugin: zqm}\n  - {plugin: journal}\n"
        "  - {plugin: table, options: {format: xml}}\n"
    ),
    "several mistakes in stages": (
        "version: 1\nstation: x\nsource: {plugin: fiel}\n"
        "detector: {plugin: energy, options: {low_hx: 500, on_db: loud}}\n"
        "sinks:\n  - {plugin: zqm}\n  - {plugin: journal}\n"
        "  - {plugin: table, options: {format: xml}}\n"
    ),
    "unknown plugins": (
        f"version: 1\nsource: {{plugin: flie}}\n{_SINKS}"
        "features: {plugin: spectrum}\ndetector: {plugin: energi}\n"
        "models: [{plugin: rnnrbm}]\ncontrol: {plugin: http}\n"
    ),
    "plugin of another kind": f"version: 1\nsource: {{plugin: journal}}\n{_SINKS}",
    "lanes and a source": f"{_BASE}lanes: [{{{_SOURCE.strip()}}}]\n",
    "no lanes": f"version: 1\nlanes: []\n{_SINKS}",
    "lanes of one name": (
        f"version: 1\nlanes:\n  - {{name: a, {_SOURCE.strip()}}}\n"
        f"  - {{name: a, {_SOURCE.strip()}}}\n{_SINKS}"
    ),
    "lane without a source": f"version: 1\nlanes: [{{name: a}}, {{nam: b}}]\n{_SINKS}",
    "no sinks": _HEAD,
    "events and queue": (
        f"{_HEAD}sinks: [{{plugin: jsonl, events: [labels], queue: {{events: 0, "
        "bluk: 1, when_full: wait}}]\n"
    ),
    "on_error": f"{_HEAD}sinks: [{{plugin: jsonl, on_error: retry}}]\n",
    "supervise and signal": (
        f"{_BASE}supervise: {{hang_s: 0, max_rss: 1}}\nsignal: {{flat: 1}}\n"
    ),
    "privacy": f"{_BASE}privacy: {{mode: on, before_s: -1, gate: {{plugin: x}}}}\n",
    "keys": f"{_BASE}keys: no-keys\n",
    "faults": (
        f"{_BASE}faults:\n  - {{fault: dorp, at_s: 1, for_s: 1}}\n"
        "  - {fault: drop, at_s: -1}\n  - {fault: crash, at_s: 1}\n"
    ),
    "faults that cannot strike": (
        f"{_BASE}faults:\n  - {{fault: unplug, at_s: 1, for_s: 1}}\n"
        "  - {fault: crash, at_s: 1, stage: rnn_rbm}\n"
        "  - {fault: drop, at_s: 1, for_s: 1, lane: left}\n"
        "  - {fault: network_cut, at_s: 1, for_s: 1}\n"
    ),
}

_STAGES = {
    "file source": (
        "version: 1\nsource: {plugin: file, options: {channels: [0], pace: slow, "
        f"start_utc: '2026-05-01T04:00:00', timezone: Mars, repeat: -1}}}}\n{_SINKS}"
    ),
    "file source without files": (
        f"version: 1\nsource: {{plugin: file, options: {{path: none.wav}}}}\n{_SINKS}"
    ),
    "file source, absent channel": (
        "version: 1\nsource: {plugin: file, options: {path: INPUTS/short.wav, "
        f"channels: [1, 3]}}}}\n{_SINKS}"
    ),
    "synthetic source": (
        "version: 1\nsource: {plugin: synthetic, options: {n_units: 27, duration_s: 0, "
        f"unit_ms: [1, x], sample_rate: 10}}}}\n{_SINKS}"
    ),
    "folder, pipe and recording source": (
        "version: 1\nlanes:\n  - {name: a, source: {plugin: folder}}\n"
        "  - {name: b, source: {plugin: pipe, options: {format: mp3}}}\n"
        "  - {name: c, source: {plugin: recording, options: {path: none}}}\n"
        "  - {name: d, source: {plugin: folder, options: {path: none}}}\n"
        f"{_SINKS}"
    ),
    "detector": (
        f"{_BASE}detector: {{plugin: energy, options: {{low_hz: 9000, high_hz: 800, "
        "min_duration_ms: -1, hop: 1}}\n"
    ),
    "detector above the rate": (
        f"{_BASE}detector: {{plugin: energy, options: {{high_hz: 90000}}}}\n"
    ),
    "detector thresholds": (
        f"{_BASE}detector: {{plugin: energy, options: {{on_db: 5, off_db: 9}}}}\n"
    ),
    "network detector without a bundle": f"{_BASE}detector: {{plugin: network}}\n",
    "features": (
        f"{_BASE}features: {{plugin: spectrogram, options: {{window: square, "
        "hop_length: 0, frame_lenght: 256}}\n"
    ),
    "features beside a bundle": f"{_MODEL}features: {{plugin: spectrogram}}\n",
    "models without a bundle": f"{_BASE}models: [{{plugin: classifier}}]\n",
    "unknown bundle": f"{_BASE}bundle: bengalesefinch\n",
    "bundle without an RNN-RBM": (
        f"{_BASE}bundle: zebra-finch\nmodels: [{{plugin: rnn_rbm}}]\n"
    ),
    "models": (
        f"{_MODEL}models:\n"
        "  - {plugin: classifier, options: {min_posterior: 2, prior: some}}\n"
        "  - {plugin: classifier, options: {thresholds: {z: 0.5}}}\n"
        "  - {plugin: rnn_rbm, options: {temperature: 0, synthesis: sing, seed: -1}}\n"
        "  - {plugin: rnn_rbm, options: {synthesis: prime}}\n"
    ),
    "prime from nothing": (
        f"{_MODEL}models:\n"
        "  - {plugin: rnn_rbm, options: {synthesis: prime, prime: none.wav}}\n"
    ),
    "unknown unit of a threshold": (
        f"{_MODEL}models:\n"
        "  - {plugin: classifier, options: {thresholds: {z: 0.5}}}\n"
    ),
    "sinks of one file": (
        f"{_HEAD}sinks:\n  - {{plugin: jsonl, options: {{path: same}}}}\n"
        "  - {plugin: table, options: {path: same}}\n"
    ),
    "sinks of one endpoint": (
        f"{_HEAD}sinks: [{{plugin: zmq}}, {{plugin: zmq}}]\ncontrol: {{plugin: zmq, "
        "options: {endpoint: 'tcp://127.0.0.1:5556'}}\n"
    ),
    "endpoints": (
        f"{_HEAD}sinks:\n"
        "  - {plugin: zmq, options: {endpoint: 'tcp://*:5556'}}\n"
        "  - {plugin: zmq, options: {endpoint: 'udp://127.0.0.1:5556'}}\n"
        "  - {plugin: zmq, options: {endpoint: 'tcp://127.0.0.1'}}\n"
        "  - {plugin: zmq, options: {endpoint: 'tcp://127.0.0.1:99999'}}\n"
        "  - {plugin: zmq, options: {endpoint: 'localhost:5556'}}\n"
        "  - {plugin: prometheus, options: {endpoint: '0.0.0.0:9464'}}\n"
        "  - {plugin: prometheus, options: {endpoint: 'nowhere'}}\n"
        "  - {plugin: journal, options: {path: a.sqlite, replay: 'tcp://0.0.0.0:1'}}\n"
        "  - {plugin: journal, options: {path: '', keep_mb: 0}}\n"
        "control: {plugin: zmq, options: {endpoint: 'tcp://0.0.0.0:5557'}}\n"
    ),
    "folders that do not exist": (
        f"{_HEAD}sinks:\n"
        "  - {plugin: journal, options: {path: no/such/a.sqlite}}\n"
        "  - {plugin: jsonl, options: {path: no/such/a.jsonl}}\n"
        "  - {plugin: table, options: {path: no/such/a.csv}}\n"
        "  - {plugin: columns, options: {path: no/such/a.csv}}\n"
        "  - {plugin: wav, options: {path: run.yaml/wav}}\n"
        "  - {plugin: recording, options: {path: run.yaml}}\n"
        "  - {plugin: clips, options: {path: run.yaml}}\n"
    ),
    "columns": (
        f"{_HEAD}sinks:\n"
        "  - {plugin: columns, options: {kinds: [labels]}}\n"
        "  - {plugin: columns, options: {format: parquet}}\n"
        "  - {plugin: columns, options: {kinds: [], path: a.csv}}\n"
    ),
    "clips": (
        f"{_MODEL[: -len(_SINKS)]}models: [{{plugin: classifier}}]\nsinks:\n"
        "  - {plugin: clips, options: {path: a, select: {units: [z]}}}\n"
        "  - {plugin: clips, options: {path: b, select: {min_surprise: 3}}}\n"
        "  - {plugin: clips, options: {path: c, format: mp3, pre_roll_s: -1}}\n"
    ),
    "triggers": (
        f"{_MODEL[: -len(_SINKS)]}models: [{{plugin: classifier}}]\nsinks:\n"
        "  - {plugin: trigger, options: {pattern: 'a [b'}}\n"
        "  - {plugin: trigger, options: {pattern: 'a $', status: onset}}\n"
        "  - {plugin: trigger, options: {pattern: 'a b', status: onset}}\n"
        "  - {plugin: trigger, options: {pattern: ''}}\n"
    ),
    "trigger of an unknown unit": (
        f"{_MODEL[: -len(_SINKS)]}models: [{{plugin: classifier}}]\nsinks:\n"
        "  - {plugin: trigger, options: {pattern: 'a z', set: {arguments: {x: 1}}}}\n"
        "  - {plugin: trigger, options: {pattern: 'a', posterior: 2}}\n"
    ),
    "labels without a model": (
        f"{_HEAD}sinks: [{{plugin: trigger, options: {{pattern: 'a b'}}}}]\n"
    ),
}

_LOCAL = {
    "absent.yaml": "./none.py:plugin",
    "attribute.yaml": "./local.py:plugni",
    "object.yaml": "./local.py:plugin",
    "raises.yaml": "./raises.py:plugin",
    "syntax.yaml": "./syntax.py:plugin",
    "unnamed.yaml": "./local.py",
}
_FILES = {
    "local.py": "plugin = 3\n",
    "raises.py": "raise ValueError('not today')\n",
    "syntax.py": "def plugin(:\n",
}


def cases() -> Iterator[Case]:
    """Yield a check of each bad configuration."""
    for name, text in {**_ENVELOPES, **_STAGES}.items():
        yield Case(name, ("check", "run.yaml"), {"run.yaml": text})
    for name, plugin in _LOCAL.items():
        text = f"{_BASE}detector: {{plugin: '{plugin}'}}\n"
        title = f"local plugin, {name.removesuffix('.yaml')}"
        yield Case(title, ("check", "run.yaml"), {"run.yaml": text, **_FILES})
    yield Case("not UTF-8", ("check", "run.yaml"), {"run.yaml": b"station: \xff\xfe\n"})
    unknown = f"{_BASE}detector: {{plugin: energy, options: {{low_hx: 500}}}}\n"
    yield Case("run instead of check", ("run", "run.yaml"), {"run.yaml": unknown})
    yield Case("log as JSON", ("--log-format", "json", "run", "run.yaml"), _RAISING)


_RAISING = {"run.yaml": _MODEL + "faults: [{fault: crash, at_s: 1, stage: features}]\n"}


def override_cases() -> Iterator[Case]:
    """Yield checks with bad values of `--set`."""
    files = {"run.yaml": _BASE}
    for name, value in {
        "no value": "tile",
        "no name": "=3",
        "unknown key": "tiel=3",
        "unknown option": "source.options.pth=x",
        "wrong type": "tile=many",
        "not YAML": "tile=[1",
        "into a number": "tile.x=1",
        "into a list without a number": "sinks.first.options.path=x",
        "beyond a list": "sinks.7.options.path=x",
        "empty part": "source..path=x",
        "duplicate keys": "detector={plugin: energy, plugin: energy}",
    }.items():
        yield Case(name, ("check", "run.yaml", "--set", value), files)
    several = ("--set", "tile=0", "--set", "station=", "--set", "detector.plugin=x")
    yield Case("several", ("check", "run.yaml", *several), files)
