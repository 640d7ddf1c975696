"""Text search over the sounds of a journal or folder."""
