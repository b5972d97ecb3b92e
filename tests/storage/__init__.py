"""One conformance suite for every driver; what differs between them is declared in `variants`."""
