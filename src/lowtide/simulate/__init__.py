"""A stand-alone simulated model server: `lowtide simulate`.

It speaks the Messages API, behaves like an engine with continuous batching and a prefix cache, fails on demand, and says
in every reply that it is simulated. It is for trying Lowtide out, for tests and for benchmarks. It knows nothing of
batches and imports nothing of Lowtide but values of the domain, so that what it proves about Lowtide is proved over a
socket.

    wire      a body becomes a Call, or the contract's refusal
    prompt    what the engine reads: bytes, tokens, cache breakpoints
    reply     what is answered: text, JSON or a tool's input, the same for the same seed and call
    engine    when it is answered: steps, seats, blocks (no I/O, no clock of its own)
    blocks    the engine's memory and its prefix cache
    pacer     runs an engine in real time on an event loop
    faults    what goes wrong, by rate or by a mark in the prompt
    misbehave how a fault looks on the wire
    server    the routes
    run       the socket, the process
"""
