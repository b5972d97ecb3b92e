"""The domain of Hermod: queues, messages, claims, and what is asked of storage."""

__version__ = "0.2.0"
