"""Hermod under faults: a load that logs what it knows, a nemesis, and checkers of the log.

`hermod-faults --minutes 30 --seed 7 --store redis`; docs/explanation/reliability.md tells the rest.
"""
