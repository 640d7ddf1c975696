"""The `relay` command: several stations behind one address."""
