"""The command line. It parses flags and prints; what a command does stands in `app` and `simulate`."""
