"""Clients of a running engine: `Subscriber` for messages, `Control` for commands.

from neurovocal.engine.client import Subscriber

with Subscriber("tcp://127.0.0.1:5556", kinds=["label"]) as subscriber:
    for message in subscriber:
        print(message.event)
"""

from neurovocal.engine.client.control import Control
from neurovocal.engine.client.received import LostMessages, Received
from neurovocal.engine.client.resume import Position
from neurovocal.engine.client.subscriber import Subscriber

__all__ = ["Control", "LostMessages", "Position", "Received", "Subscriber"]
