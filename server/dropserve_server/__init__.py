"""dropserve server."""
