"""Drivers of model servers: bytes out, bytes in, and what became of the connection. Follow `messages.py`."""
