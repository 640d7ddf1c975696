"""The `pipe` source: raw PCM from a command or standard input."""
