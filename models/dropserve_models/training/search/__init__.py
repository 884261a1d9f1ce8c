"""Settings chosen by trying them on parts of the training rows."""
