"""Steps from one schema to the next, each frozen once it is released: `tables` moves on, a step does not."""
