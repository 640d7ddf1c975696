"""ZeroMQ servers: endpoints, access, limits, replay."""
