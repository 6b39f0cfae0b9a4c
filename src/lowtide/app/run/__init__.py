"""`lowtide run`: a file of requests in, a file of results out, by the same parts that `lowtide serve` is made of."""
