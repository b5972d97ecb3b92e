"""Load programs, each named for its load, and the conditions they were measured under.

`hermod bench` runs them; docs/reference/bench.md says what they do and how they measure.
"""
