"""The ZeroMQ message format, its keys and its sockets."""
