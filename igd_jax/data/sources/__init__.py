"""One module a source; the file name is the value of ``prepare --source``."""
