"""The results of a batch that has ended, as one file of lines that never changes."""
