"""Whole interactions with the domain, one module per resource."""
