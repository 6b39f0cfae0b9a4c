"""Values and rules of Lowtide, free of I/O: what a batch is, who may move it, and the bytes it is made of."""
