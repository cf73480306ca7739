"""One module for each kind of result, which makes the section's record."""
