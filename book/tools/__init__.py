"""What `make` calls: exporting, executing, checking and building the book."""
