"""What a service is compared with: the engine of its store alone, and a bare application behind the same server."""
