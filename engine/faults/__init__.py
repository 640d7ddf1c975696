"""Fault injection: failures of devices, stages, disk and network on request."""
