"""SQLite files and the folders and locks around them."""
