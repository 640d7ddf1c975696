"""How much drawn song is like real song: measures on sequences of frames."""
