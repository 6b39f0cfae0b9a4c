"""The composition root: the one place that reads settings and the environment, and puts the parts together."""
