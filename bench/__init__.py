"""Load programs, each named for its load, and the conditions they were measured under.

`python -m bench` runs a short version of everything; docs/explanation/performance.md
says how to read it.
"""
