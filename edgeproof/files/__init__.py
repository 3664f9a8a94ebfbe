"""Files that are written atomically, locked, hashed and kept in the cache."""
