"""One file for each kind of result: what a page says about it."""
