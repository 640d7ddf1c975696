"""Print every final label of a running engine.

Start an engine first, in another terminal: neurovocal run

    python subscriber.py [ENDPOINT [REPLAY]]

With the replay socket of the engine's journal, labels that were lost come later.
"""

import sys

from neurovocal.engine import Label
from neurovocal.engine.client import Subscriber

endpoint = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5556"

replay = sys.argv[2] if len(sys.argv) > 2 else None

with Subscriber(endpoint, kinds=["label"], replay=replay) as subscriber:
    for message in subscriber:
        if message.missed:
            print(f"missed {message.missed.count} messages", file=sys.stderr)
        label = message.event
        if isinstance(label, Label) and label.status == "final":
            seconds = label.onset / message.sample_rate
            print(f"{message.stream}  {seconds:9.3f} s  {label.unit}", flush=True)
