"""From an HTTP body to a stored batch: spool, split, plan, write, commit."""
