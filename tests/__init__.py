"""The test suite; `cases` is the one table of shapes and inputs that all of it uses."""
