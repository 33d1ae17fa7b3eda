"""One module per source; the file name is the value of ``prepare --source``."""
