"""The engine: types, contracts, lane, runner, wire and client."""
