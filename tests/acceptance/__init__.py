"""The service as a whole: real processes, broken stores, hostile input."""
