"""Consumers of queues that carry messages on to subscribers: one scheme family per file."""
