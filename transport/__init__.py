"""Every way in: REST, command line, and the wiring of the parts."""
