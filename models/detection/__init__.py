"""Training of detector networks: synthetic calls, noise floors, bundle."""
