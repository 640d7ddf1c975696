"""What triggers set in models: found out beforehand, and carried out in place."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

from neurovocal.engine.channel import Channel
from neurovocal.engine.errors import NeurovocalError
from neurovocal.engine.orders import Order, Wish
from neurovocal.engine.types import Health, Trigger

# Makes the order that a wish stands for, or says why it cannot.
Recall: TypeAlias = Callable[[Wish, Channel], Order]

log = logging.getLogger("neurovocal")


def rehearse(channels: Sequence[Channel], recall: Recall | None) -> None:
    """Find out now whether what triggers are to set can be set.

    Raises
    ------
    NeurovocalError
        It cannot; one sentence says why.
    """
    for channel in channels:
        for watcher in channel.lane.watchers:
            wish: Wish | None = getattr(watcher.stage, "wish", None)
            if wish is not None and recall is not None:
                recall(wish, channel)


def set_off(trigger: Trigger, channel: Channel, recall: Recall | None) -> Health | None:
    """Set what a trigger sets, before more is heard: at the same sample always.

    The trigger itself says so; there is no `Control` event besides, which a
    replay would carry out twice. What goes wrong is returned.
    """
    if trigger.decision != "act" or not trigger.model or recall is None:
        return None
    try:
        order = recall(Wish("set", trigger.model, trigger.arguments), channel)
        order.carry_out([channel], lambda event, channel: None)
        order.wait(0.0)
    except NeurovocalError as error:
        log.warning("trigger '%s' set nothing: %s", trigger.trigger, error)
        name = f"trigger '{trigger.trigger}'"
        return Health(name, "lossy", f"it set nothing: {error}")
    return None
