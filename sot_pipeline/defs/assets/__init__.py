"""The assets, one file per group, in pipeline order."""
