"""REST over WSGI, with falcon."""
