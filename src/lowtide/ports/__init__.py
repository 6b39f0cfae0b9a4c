"""What the services ask of the outside: operations with meaning, free of SQL and HTTP.

Drivers under `storage` and `upstreams` implement these; one behaviour suite per port says when one is finished.
"""
