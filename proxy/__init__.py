"""The proxy: workers that forward calls untouched, the spool beside them, and the shipper that empties it."""
