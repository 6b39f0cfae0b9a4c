"""From chunks to results: choose, lease, send within the gate, judge, commit. Follow `worker.py` for the way through."""
