"""Export of bundles and checks of their graphs against torch."""
