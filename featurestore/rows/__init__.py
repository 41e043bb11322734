"""Arrays of rows and the compiled loops over them; nothing here opens a file."""
