"""A client of the Message Batches API for our own commands: small, blocking, on Python's own `http.client`.

It speaks to any server of the API; what only a Lowtide has (live figures, events, results so far) it asks for and does
without. It keeps no batch, no input and no result in memory, and it never prints. Why not the SDK or the driver of
upstreams: `docs/decisions/client.md`.
"""
