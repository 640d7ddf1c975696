"""Command `relay`: several stations at one endpoint."""
