"""Delivery of events to a service that may be away: queues, position, daily summary."""
