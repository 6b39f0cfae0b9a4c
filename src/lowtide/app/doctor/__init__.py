"""`lowtide doctor`: what would keep a server from working, looked at before or beside it. It changes nothing of value."""
