"""A tiny pair of encoders of audio and text: tones that have names."""

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from stages.onnx_graphs import save_graph

WORDS = ("[FILL]", "[ELSE]", "low", "middle", "high", "tone", "rain")
TONES = ("low", "middle", "high")  # of 8, 16, 24 periods per window


def save_pair(folder, window=800, sample_rate=8000, **entries):
    """Write two encoders, their tokenizer and a manifest; return the manifest."""
    _save_audio_encoder(folder / "audio.onnx", window)
    _save_text_encoder(folder / "text.onnx")
    _save_tokenizer(folder / "tokenizer.json")
    manifest = {
        "version": 1,
        "name": "tones",
        "audio": {
            "graph": "audio.onnx",
            "sample_rate": sample_rate,
            "window": window,
            "input": {"tensor": "samples"},
            "output": "embedding",
        },
        "text": {
            "graph": "text.onnx",
            "tokenizer": "tokenizer.json",
            "output": "embedding",
        },
        "names": ["low tone", "middle tone", "high tone"],
        "background": ["rain"],
        "scale": 10.0,
    }
    for key, value in entries.items():
        part, _, name = key.rpartition("__")
        (manifest[part] if part else manifest)[name] = value
    path = folder / "tones.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return path


def _save_audio_encoder(path, window):
    """Write an encoder of samples: how much of each tone is in a window.

    The last of four values is what silence and other sounds have.
    """
    phase = 2 * np.pi * np.arange(window)[:, None] / window
    tones = 8 * (1 + np.arange(len(TONES)))[None, :]
    weights = np.concatenate([np.cos(phase * tones), np.sin(phase * tones)], axis=1)
    save_graph(
        path,
        [
            helper.make_node("MatMul", ["samples", "weights"], ["parts"]),
            helper.make_node("Mul", ["parts", "parts"], ["squares"]),
            helper.make_node("Split", ["squares"], ["cosines", "sines"], axis=1),
            helper.make_node("Add", ["cosines", "sines"], ["powers"]),
            helper.make_node("Concat", ["powers", "rest"], ["embedding"], axis=1),
        ],
        [("samples", TensorProto.FLOAT, ["batch", window])],
        [("embedding", TensorProto.FLOAT, ["batch", len(TONES) + 1])],
        weights=(weights / window).astype(np.float32),
        rest=np.full((1, 1), 1e-4, np.float32),
    )


def _save_text_encoder(path):
    """Write an encoder of tokens: the sum of their vectors, without the fillers."""
    table = np.zeros((len(WORDS), len(TONES) + 1), np.float32)
    for number, word in enumerate(TONES):
        table[WORDS.index(word), number] = 1.0
    table[WORDS.index("rain"), -1] = 1.0
    table[WORDS.index("tone"), :-1] = 0.01
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["masks"]),
        helper.make_node("Mul", ["vectors", "masks"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["embedding"], keepdims=0),
    ]
    given = {
        "table": table,
        "last": np.array([2], np.int64),
        "middle": np.array([1], np.int64),
    }
    shape = ["batch", "tokens"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info(
        "embedding", TensorProto.FLOAT, ["batch", table.shape[1]]
    )
    constants = [numpy_helper.from_array(v, k) for k, v in given.items()]
    graph = helper.make_graph(nodes, "text", inputs, [output], constants)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _save_tokenizer(path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[ELSE]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(path))


def tone(name, window, n_samples, amplitude=0.5):
    """A sine that the audio's encoder takes for a name, float32[n_samples]."""
    phase = 2 * np.pi * np.arange(n_samples) * 8 * (TONES.index(name) + 1) / window
    return (amplitude * np.sin(phase)).astype(np.float32)
