"""The `mqtt` sink: events and states for an MQTT broker."""
