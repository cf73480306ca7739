"""Records of a report's sections, one module for each kind of result."""
