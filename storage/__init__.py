"""Everything that remembers: one driver per file, opened through `storage.registry`."""
