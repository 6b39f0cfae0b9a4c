"""Lowtide: a self-hosted server of the Message Batches API."""

__version__ = "0.1.0"
