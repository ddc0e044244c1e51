"""The demo's small world: its text sets, its aligned model and its exact judge."""
