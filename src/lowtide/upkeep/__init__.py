"""The background loops that keep what the calls and the workers left: leases, deadlines, dead objects."""
