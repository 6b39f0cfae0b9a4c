"""The HTTP doors: the Message Batches API and its neighbours, exactly as clients of the hosted service expect them.

A door translates: bytes and headers in, one operation of a service or a port, bytes and headers out. It decides
nothing about batches, and never reads settings. Source of everything on the wire: `message-batches-api.md`.
"""
