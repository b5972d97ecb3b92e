"""What released versions stored and answered, and the releases themselves; see docs/explanation/upgrades.md."""
