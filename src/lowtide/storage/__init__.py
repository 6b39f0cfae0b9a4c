"""Drivers of the storage ports: metadata in SQLite, objects in a local directory.

`tables` says what is stored; the modules beside it hold one theme each, statements first, then the operations that use
them, written against a plain SQLAlchemy connection; `sql_store` joins them to the port, and `sqlite` brings the engine.
Nothing here knows of HTTP, settings or upstreams.
"""
