"""`lowtide batches`: commands for the batches of any server of the API, hosted or ours."""
