"""The Dagster side: settings, store, assets, checks, jobs. Stages know nothing of it."""
